"""HTTP/1.1 itself, both ways: the listening edge and the client for configured upstreams. Knows nothing of Convene."""

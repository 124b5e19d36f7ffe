"""What a request means: turns, routing, admission, keys. No HTTP, no vendor, no SQL."""

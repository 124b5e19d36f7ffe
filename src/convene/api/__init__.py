"""HTTP in, HTTP out: one module per resource. The only room that knows status codes, headers and wire shapes."""

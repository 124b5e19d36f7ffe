"""What the server may do inside a turn: search the web, read a page, call a tool of an MCP server."""

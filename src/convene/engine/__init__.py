"""The embedded CPU engine: weights, how to get them, the child process that serves them. Imports nothing of ours."""

"""Convene: a self-hosted, OpenAI-compatible, agentic LLM API."""

__version__ = "0.1.0"

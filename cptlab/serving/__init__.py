"""Serve trained prefixes with vLLM: a KV connector for an unmodified vLLM, and its OpenAI-compatible server."""

"""Answers on demand: an engine that batches requests as they come, and the OpenAI-compatible server above it."""

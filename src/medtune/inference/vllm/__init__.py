"""vLLM in an environment of its own: started as a child, and asked over HTTP; nothing of it is imported."""

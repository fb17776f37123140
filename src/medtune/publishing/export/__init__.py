"""A tuned model in the form that other programs want: Ollama's Modelfile, GGUF for llama.cpp, a folder for vLLM."""

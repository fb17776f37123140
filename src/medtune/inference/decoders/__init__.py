"""Greedy decoding of one batch of prompts: with a growing cache everywhere, with a static one on GPUs."""

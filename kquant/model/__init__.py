"""A GGUF file as Python sees it."""

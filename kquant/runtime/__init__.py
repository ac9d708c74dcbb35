"""Running models: from tokens to logits, and from logits to text."""

"""What becomes of each tensor of a model, and where it will lie: all of it before a byte is written."""

"""Importance matrices: read, checked and matched with tensors."""

"""Rows of floats to packed rows and back, and packed rows that behave like an array."""

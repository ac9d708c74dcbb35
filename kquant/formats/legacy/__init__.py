"""The types with blocks of 32 elements."""

"""The types whose block is a single number."""

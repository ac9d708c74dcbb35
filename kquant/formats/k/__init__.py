"""The k-quants: super-blocks of 256 elements."""

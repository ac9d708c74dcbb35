"""Carries a plan out: from a source file, slab by slab, to the file that the plan describes."""

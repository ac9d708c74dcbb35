"""Threads: one pool and one scheduler for all of kquant."""

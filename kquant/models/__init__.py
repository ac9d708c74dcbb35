"""What a model computes: hyperparameters, the names of tensors, and a graph for each architecture.

Nothing here computes.  `record` writes an architecture's graph down as a `Program`, a flat list of operations
on rows of float32, one row a token; `kquant.runtime` plays it.
"""

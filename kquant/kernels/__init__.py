"""What kernels are written in, and what runs them.

`lanes`, `blocks` and `products` are the vocabulary: NumPy executes it as it stands.  `jit` has Numba compile
it, with what the modules `simd*` teach, and `kernel_cache` keeps the machine code.  `drivers` are
the loops around a room's kernels, and `execute` the door to them.
"""

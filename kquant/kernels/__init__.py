"""What kernels are written in, and what runs them.

`lanes`, `blocks` and `products` are the vocabulary: NumPy executes it as it stands.  `jit` has Numba compile
it, with what the modules `simd*` teach, and `kernel_cache` keeps the machine code.  `execute` drives a room's
kernels over rows of blocks.
"""

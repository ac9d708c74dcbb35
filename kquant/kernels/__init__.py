"""What kernels are written in, and what runs them.

`language` holds the operations that a kernel may use: NumPy executes them as they stand.  `lowering` says
what LLVM makes of each, `compile` has Numba compile kernels, and `cache` keeps the machine code.  `layout`
describes the structures that Python and compiled code share.  `drivers` and `product_loops` are the loops
around a format's kernels, `execute` carries them over arrays.
"""

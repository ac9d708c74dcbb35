"""What LLVM makes of the kernels' language, through Numba."""

"""Products of packed rows with activations: `matmul` and `vec_dot`."""

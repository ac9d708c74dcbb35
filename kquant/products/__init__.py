"""Products of packed rows with activations: `matmul`, `matmul_many`, `PackedActivations`, `vec_dot`."""

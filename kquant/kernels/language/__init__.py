"""What a kernel may say; NumPy executes it as it stands."""

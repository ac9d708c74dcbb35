"""What a file holds: its anatomy, sizes and types, whether its blocks are sound, and where its errors are."""

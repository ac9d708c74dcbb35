"""What a file contains: its anatomy, sizes and types, whether its blocks are sound, and where errors are."""

"""Of the pure parts, and of what ends processes."""

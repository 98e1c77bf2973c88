"""select-features: which columns matter."""

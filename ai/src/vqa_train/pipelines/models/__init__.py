"""What the `models` commands do: list, verify, move, bundle, sign, push and pull models; imports no torch."""

"""The store commands: look, verify, repair, merge, compact."""

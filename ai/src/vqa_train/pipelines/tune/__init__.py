"""tune: a search over recipes."""

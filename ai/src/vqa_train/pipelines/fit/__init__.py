"""fit: recipe and table to a run folder."""

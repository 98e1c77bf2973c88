"""report: a run folder or a model as one HTML page that a person reads without explanation."""

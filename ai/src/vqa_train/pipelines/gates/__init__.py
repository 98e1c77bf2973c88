"""Gates: checks of a model that can fail, one file each, with limits from flags or a gate file."""

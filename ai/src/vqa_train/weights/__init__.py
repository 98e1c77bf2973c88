"""Where backbones' weights come from and which bytes they must be: manifest, folder, pins, download. Needs no torch."""

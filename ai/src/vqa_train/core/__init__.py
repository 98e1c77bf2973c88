"""Nouns and tools that every layer shares: types, errors, hashing, provenance, plug-ins, atomic files."""

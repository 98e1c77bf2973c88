"""Adapters: how a dataset's label tables are found, read and tied to its files. One file each."""

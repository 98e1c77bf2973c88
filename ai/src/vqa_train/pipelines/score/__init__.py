"""Scoring with onnxruntime alone; imports no torch, pyarrow or polars."""

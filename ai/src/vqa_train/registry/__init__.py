"""Registered models: sidecar schema, registry file, model card, cache of large ONNX files; imports no torch."""

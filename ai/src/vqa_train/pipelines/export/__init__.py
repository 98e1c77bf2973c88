"""export and export-backbone: verified ONNX files with sidecars."""

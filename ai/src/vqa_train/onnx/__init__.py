"""ONNX files: export, parity with torch, and a runtime that needs neither torch nor the onnx package."""

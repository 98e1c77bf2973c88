"""vqa-train: cached features of frozen video backbones, small trained heads, scoring with ONNX alone."""

__version__ = "0.1.0"

"""Neural architecture search on ONNX files, measured on the CPU that will serve them."""

__version__ = "0.1.0"

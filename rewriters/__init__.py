"""Graph surgery on ONNX models: a model and instructions in, a model out. Knows nothing else."""

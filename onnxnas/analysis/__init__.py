"""What can change in a graph, found from the graph alone: blocks, width groups, kernels."""

from onnxnas.analysis.analyse import Analysis, analyse

__all__ = ["Analysis", "analyse"]

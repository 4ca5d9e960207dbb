"""A torch module to ONNX: the one place where a model is exported, before the tool's own line begins."""

from onnxnas.exporting.export import Exported, InputSpec, export, export_module, parse_input
from onnxnas.exporting.module import build_module, load_weights

__all__ = ["Exported", "InputSpec", "build_module", "export", "export_module", "load_weights", "parse_input"]

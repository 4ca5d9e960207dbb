"""The search space: named dimensions with ordered choices, and what a choice means for the graph."""

from onnxnas.space.build import build, from_json
from onnxnas.space.importance import importance, sorting_edits
from onnxnas.space.space import Dimension, SearchSpace

__all__ = ["Dimension", "SearchSpace", "build", "from_json", "importance", "sorting_edits"]

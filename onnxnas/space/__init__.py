"""The search space: named dimensions with ordered choices, and what a choice means for the graph."""

from onnxnas.space.build import Order, build, from_json
from onnxnas.space.importance import by_data, by_score, importance, sorting_edits
from onnxnas.space.space import Dimension, SearchSpace

__all__ = [
    "Dimension",
    "Order",
    "SearchSpace",
    "build",
    "by_data",
    "by_score",
    "from_json",
    "importance",
    "sorting_edits",
]

"""A model whose file fixes the batch, as one that takes any number of samples: proposed, then proved.

Training takes many samples at a time. Most files with a batch of 1 compute nothing across samples; only their
declarations and the targets of some Reshapes say 1. `rewriters.free_batch` changes these, and what comes out is
believed when it answers two batches put together as the file answers them one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

import rewriters
from onnxnas import graph, measure
from onnxnas.errors import ModelError
from onnxnas.pipeline.check import TOLERANCE, difference


def fixed(loaded: graph.Graph) -> tuple[str, int] | None:
    """The first input whose first dimension is a number in the file, and that number."""
    for name in loaded.inputs:
        declared = loaded.tensors[name].declared or ()
        if declared and isinstance(declared[0], int):
            return name, declared[0]
    return None


def free(
    loaded: graph.Graph,
    content: bytes,
    where: str,
    shapes: Mapping[str, Sequence[int]],
    least_opset: int = 1,
) -> tuple[graph.Graph, bytes, tuple[str, ...]]:
    """The model `where` with a batch that is free, and what was done to it, for the user. Raises ModelError."""
    found = fixed(loaded)
    if found is None:
        return loaded, content, ()
    name, size = found
    try:
        loaded, content = freed(loaded, content, shapes, least_opset)
    except ModelError as error:
        raise ModelError(
            f"{where}: input '{name}' has a fixed batch of {size}, expected a symbol in the first dimension; "
            f"it cannot be freed here: {error}; export the model with a dynamic batch"
        ) from None
    note = (
        f"The file fixes the batch at {size}, the network does not depend on it: here it takes any number of "
        "samples, the original that others are compared with too."
    )
    return loaded, content, (note,)


def freed(
    loaded: graph.Graph, content: bytes, shapes: Mapping[str, Sequence[int]], least_opset: int = 1
) -> tuple[graph.Graph, bytes]:
    """The same network with a free batch, under the digest of the file, as a graph and serialised.

    `content` is the file; the graph is of `least_opset` at least. Raises ModelError with what shows that its
    batch cannot be freed.
    """
    made = rewriters.free_batch(graph.parse(content))
    if isinstance(made, rewriters.Refusal):
        raise ModelError(made.reason)
    free = bytes(made.SerializeToString())
    first, second = (graph.example_inputs(loaded, seed=seed, shapes=shapes) for seed in (0, 1))
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    with measure.Measurer(measure.Target(), content, first, noise_floor=0.0) as measurer:
        apart = [measurer.run(content, feeds) for feeds in (first, second)]
        together = measurer.run(free, both)
    if any(array.ndim == 0 for array in apart[0]):
        raise ModelError("an output is one number for the whole batch")
    worst = difference(together, [np.concatenate(pair) for pair in zip(*apart, strict=True)])["max_rel"]
    if worst is None or not worst <= TOLERANCE:
        raise ModelError(f"two samples at once give other outputs than one by one (by {worst:.1e})")
    again = graph.load(made, shapes=shapes, least_opset=least_opset)
    return dataclasses.replace(again, digest=loaded.digest, source=loaded.source), free

"""How near one ONNX model's outputs are to another's, in ONNX Runtime: `fidelity.py ORIGINAL OTHER --data DATA.yaml`.

Both answer the test samples of DATA (validation samples where there are none); the original's outputs are the target
of DATA's metric, or of another one, as in a run without labels. Prints one line. For example, what a sub-network is
worth as it is cut out of the file, without training:

    onnxnas extract original.onnx --subnet subnet.json -o cut.onnx
    python tools/fidelity.py original.onnx cut.onnx --data data.yaml
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxnas import data, graph

Arrays = list[NDArray[np.generic]]


def answer(session: onnxruntime.InferenceSession, x: dict[str, NDArray[np.generic]]) -> Arrays:
    """The outputs for one sample after the other, put together: the file may fix its batch at 1."""
    n = len(next(iter(x.values())))
    each = [session.run(None, {name: array[i : i + 1] for name, array in x.items()}) for i in range(n)]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


def fidelity(original: Path, other: Path, source: Path, name: str | None = None) -> tuple[float, str, int]:
    """(quality, the metric's name and unit, samples); by the metric `name`, by default that of the data."""
    loaded = graph.load(original)
    found = data.load(
        source,
        [loaded.tensors[name] for name in loaded.inputs],
        outputs=[loaded.tensors[name] for name in loaded.outputs],
    )
    metric = data.metric_of(dataclasses.replace(found, metric=name or found.metric))
    meter = metric.start()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(path, options) for path in (other, original)]
    split = found.test or found.val
    for x, _ in data.batches(split, found, 8):
        mine, wanted = (answer(session, x) for session in sessions)
        meter.update(mine[0] if len(mine) == 1 else mine, wanted[0] if len(wanted) == 1 else wanted)
    return meter.compute(), f"{metric.name} {metric.unit}", split.n


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("original", type=Path, metavar="ORIGINAL")
    parser.add_argument("other", type=Path, metavar="OTHER")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA.yaml")
    parser.add_argument("--metric", help="instead of DATA's, for example agreement")
    given = parser.parse_args(arguments)
    quality, unit, n = fidelity(given.original, given.other, given.data, given.metric)
    print(f"{given.other}: {quality:.2f} {unit} against {given.original} on {n} samples")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How near one ONNX model's outputs are to another's, in ONNX Runtime: `fidelity.py ORIGINAL OTHER --data DATA.yaml`.

Both answer the test samples of DATA (validation samples where there are none); the original's outputs are the target
of DATA's metric, or of another one, as in a run without labels. Prints one line. For example, what a sub-network is
worth as it is cut out of the file, without training:

    onnxnas extract original.onnx --subnet subnet.json -o cut.onnx
    python tools/fidelity.py original.onnx cut.onnx --data data.yaml

With --labels, OTHER is judged by the labels of DATA instead, which the run that made it need not have had. By top1 it
is also told how many samples each of the two alone has right, and how probable a difference of at least that would be
if both were as good (exact test of McNemar, Note on the sampling error of the difference between correlated
proportions, 1947).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.stats import binomtest

from onnxnas import data, graph

Arrays = list[NDArray[np.generic]]


def answer(session: onnxruntime.InferenceSession, x: dict[str, NDArray[np.generic]]) -> Arrays:
    """The outputs for one sample after the other, put together: the file may fix its batch at 1."""
    n = len(next(iter(x.values())))
    each = [session.run(None, {name: array[i : i + 1] for name, array in x.items()}) for i in range(n)]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


def fidelity(
    original: Path, other: Path, source: Path, name: str | None = None, *, labels: bool = False
) -> tuple[float, str, int]:
    """(quality, the metric's name and unit, samples); by the metric `name`, by default that of the data."""
    found, split = _samples(original, source)
    metric = data.metric_of(dataclasses.replace(found, metric=name or found.metric))
    meter = metric.start()
    sessions = [_session(path) for path in (other, original)]
    if labels and split.y is None:
        raise SystemExit(f"{source}: its samples have no labels")
    for x, y in data.batches(split, found, 8):
        mine = answer(sessions[0], x)
        wanted = [y] if labels and y is not None else answer(sessions[1], x)
        meter.update(mine[0] if len(mine) == 1 else mine, wanted[0] if len(wanted) == 1 else wanted)
    return meter.compute(), f"{metric.name} {metric.unit}", split.n


def right_alone(original: Path, other: Path, source: Path) -> tuple[int, int, float]:
    """On how many samples ORIGINAL alone has the class of the label first, OTHER alone, and McNemar's probability."""
    each = []
    for path in (original, other):
        found, split = _samples(original, source)
        session = _session(path)
        hits = [
            answer(session, x)[0].argmax(1) == y for x, y in data.batches(split, found, 8) if y is not None
        ]
        each.append(np.concatenate(hits))
    first, second = int((each[0] & ~each[1]).sum()), int((each[1] & ~each[0]).sum())
    probability = binomtest(first, first + second).pvalue if first + second else 1.0
    return first, second, float(probability)


def _samples(original: Path, source: Path) -> tuple[data.DataSet, data.Split]:
    """The data as ORIGINAL takes it, and its test samples, or validation samples."""
    loaded = graph.load(original)
    found = data.load(
        source,
        [loaded.tensors[name] for name in loaded.inputs],
        outputs=[loaded.tensors[name] for name in loaded.outputs],
    )
    return found, found.test or found.val


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("original", type=Path, metavar="ORIGINAL")
    parser.add_argument("other", type=Path, metavar="OTHER")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA.yaml")
    parser.add_argument("--metric", help="instead of DATA's, for example agreement")
    parser.add_argument("--labels", action="store_true", help="judge OTHER by the labels of DATA")
    given = parser.parse_args(arguments)
    quality, unit, n = fidelity(given.original, given.other, given.data, given.metric, labels=given.labels)
    against = "the labels" if given.labels else given.original
    print(f"{given.other}: {quality:.2f} {unit} against {against} on {n} samples")
    if given.labels and unit.startswith("top1 "):
        first, second, probability = right_alone(given.original, given.other, given.data)
        print(f"right alone: the original on {first}, the other on {second}; probability {probability:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

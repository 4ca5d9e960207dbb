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


@dataclasses.dataclass(frozen=True)
class Judged:
    """The quality, the metric's name and unit, the samples; by top1 and labels what each of the two alone has right."""

    quality: float
    unit: str
    n: int
    alone: tuple[int, int] | None


def fidelity(
    original: Path, other: Path, source: Path, name: str | None = None, *, labels: bool = False
) -> Judged:
    """By the metric `name`, by default that of the data; `alone` is of ORIGINAL and OTHER, in this order."""
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
    if labels and split.y is None:
        raise SystemExit(f"{source}: its samples have no labels")
    paired = labels and metric.name == "top1"
    first = second = 0
    for x, y in data.batches(split, found, 8):
        mine = answer(sessions[0], x)
        theirs = answer(sessions[1], x) if paired or not labels else []
        wanted = [y] if labels and y is not None else theirs
        meter.update(mine[0] if len(mine) == 1 else mine, wanted[0] if len(wanted) == 1 else wanted)
        if paired:
            right, originally = (outputs[0].argmax(1) == y for outputs in (mine, theirs))
            first += int((originally & ~right).sum())
            second += int((right & ~originally).sum())
    alone = (first, second) if paired else None
    return Judged(meter.compute(), f"{metric.name} {metric.unit}", split.n, alone)


def mcnemar(first: int, second: int) -> float:
    """The exact two-sided probability; 1 where they differ nowhere."""
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("original", type=Path, metavar="ORIGINAL")
    parser.add_argument("other", type=Path, metavar="OTHER")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA.yaml")
    parser.add_argument("--metric", help="instead of DATA's, for example agreement")
    parser.add_argument("--labels", action="store_true", help="judge OTHER by the labels of DATA")
    given = parser.parse_args(arguments)
    found = fidelity(given.original, given.other, given.data, given.metric, labels=given.labels)
    against = "the labels" if given.labels else given.original
    print(f"{given.other}: {found.quality:.2f} {found.unit} against {against} on {found.n} samples")
    if found.alone is not None:
        first, second = found.alone
        probability = mcnemar(first, second)
        print(f"right alone: the original on {first}, the other on {second}; probability {probability:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

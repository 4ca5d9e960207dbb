"""Proof that the tool understands a model: the document of `onnxnas check`.

Three comparisons, all of numbers:

    identity   the maximal sub-network, rewritten      against  the original file, both in the runtime
    torch      the super-network, maximal, in torch    against  the original file in the runtime
    subnets    extracted ONNX files in the runtime     against  the same sub-network active in torch

`max_rel` is max |a-b| / max |b|, the worst over the outputs that differ by more than `ROUNDING` (over all
when none does).
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas import graph
from onnxnas.errors import ModelError, OnnxnasError
from onnxnas.pipeline.inspect import Inspection, inspect
from onnxnas.types import Subnet

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

    from onnxnas import measure
    from onnxnas.space import SearchSpace

Arrays = list["NDArray[Any]"]

TOLERANCE = 1e-4
"""Largest relative difference of two runs of one runtime that counts as equal: sums in another order."""
TORCH_TOLERANCE = 1e-3
"""The same between torch and a runtime, whose kernels differ in every layer."""
ROUNDING = 1e-6
"""An absolute difference below this counts as equal: the probabilities of a saturated output are as good as 0."""


def check(
    source: str | Path | ModelProto,
    *,
    samples: int = 5,
    seed: int = 0,
    runtime: str = "onnxruntime",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """The document of `onnxnas check --json` (schema 1). Raises ModelError when the model cannot be loaded at all."""
    from onnxnas import measure

    began = time.perf_counter()
    target = measure.Target(runtime=runtime, threads=1, batch=1)
    problems: list[str] = []
    with _opened(source, shapes, seed, target) as (seen, feeds, original, measurer):
        reference = _run(measurer, original, feeds, "the original file", problems)
        rewritten = graph.rewrite(seen.graph, seen.space.plan(seen.space.maximal()))
        identity = difference(
            _run_rewritten(measurer, rewritten, feeds, "the maximal sub-network", problems), reference
        )
        _judge(identity, "identity", TOLERANCE, problems)
        network, torch_ = _torch(seen, feeds, reference, problems)
        rows = [
            _subnet(seen, network, measurer, subnet, feeds, problems)
            for subnet in dict.fromkeys(subnets(seen.space, samples, seed))
        ]
    return {
        "schema": 1,
        "ok": not problems,
        "seconds": round(time.perf_counter() - began, 3),
        "identity": identity,
        "torch": torch_,
        "subnets": rows,
        "problems": problems,
    }


@contextmanager
def _opened(
    source: Any, given: Mapping[str, Sequence[int]] | None, seed: int, target: measure.Target
) -> Iterator[tuple[Inspection, Mapping[str, NDArray[Any]], bytes | Path, measure.Measurer]]:
    """The model, inputs, the model for the runtime and a process that has run it on them.

    Of other than default shapes if it must be. Raises ModelError when the runtime takes none of them.
    """
    from onnxnas import measure

    first = inspect(source, shapes=given)
    tries: list[tuple[Inspection | None, Mapping[str, Sequence[int]] | None]] = [(first, given)]
    tries += [] if given else [(None, shapes) for shapes in graph.other_shapes(first.graph)]
    refusal: ModelError | None = None
    with ExitStack() as stack:
        for known, shapes in tries:
            try:
                seen = known or inspect(source, shapes=shapes)
                feeds = graph.example_inputs(seen.graph, seed=seed, shapes=shapes)
                original = as_it_came(source, seen.graph)
                measurer = stack.enter_context(measure.Measurer(target, original, feeds))
            except ModelError as error:
                refusal = refusal or error
                continue
            break
        else:
            assert refusal is not None
            raise refusal
        yield seen, feeds, original, measurer


def subnets(space: SearchSpace, samples: int, seed: int) -> list[Subnet]:
    """The minimal, the depth-only and the width-only smallest ones, then random ones; `samples` in all at least."""
    smallest = space.minimal()
    chosen = [smallest, Subnet(skip=smallest.skip), Subnet(width=smallest.width)]
    rng = np.random.default_rng(seed)
    return chosen + [space.random(rng) for _ in range(max(0, samples - len(chosen)))]


def as_it_came(source: Any, loaded: graph.Graph) -> bytes | Path:
    """The user's model for a runtime: serialised, or the file itself when its weights lie in other files."""
    if hasattr(source, "SerializeToString"):
        return bytes(source.SerializeToString())
    weights = sum(array.nbytes for array in loaded.initializers.values())
    return Path(source) if Path(source).stat().st_size < weights // 2 else Path(source).read_bytes()


def _servable(model: ModelProto, place: Path) -> bytes | Path:
    """A model for a runtime: serialised, or a file in `place` when that is too large for one message."""
    path = graph.save(model, place / "model.onnx") if graph.too_large(model) else None
    return model.SerializeToString() if path is None else path


def same_function(prepared: bytes, original: bytes, feeds: Mapping[str, NDArray[Any]], where: str) -> None:
    """Raise ModelError when the prepared form of the model `where` does not compute what its file computes."""
    from onnxnas import measure

    with measure.Measurer(measure.Target(), original, feeds) as measurer:
        told = difference(measurer.run(prepared, feeds), measurer.run(original, feeds))
    worst = told["max_rel"]
    if worst is None or not worst <= TOLERANCE:
        raise ModelError(
            f"{where}: the prepared model differs from the original by {worst}, expected {TOLERANCE:.0e} at most; "
            "see `onnxnas check`"
        )


def difference(found: Arrays | None, expected: Arrays | None) -> dict[str, float | None]:
    """{"max_abs", "max_rel"}: the worst over all outputs; None where there is nothing to compare.

    Outputs of different shape, or NaN on one side only, differ infinitely. Next to an output that differs by more
    than `ROUNDING` those that do not are left out of `max_rel`: a detector's scores may be 1e-5 all over.
    """
    if found is None or expected is None:
        return {"max_abs": None, "max_rel": None}
    gaps: list[tuple[float, float]] = []
    if len(found) != len(expected):
        return {"max_abs": math.inf, "max_rel": math.inf}
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            return {"max_abs": math.inf, "max_rel": math.inf}
        if not a.size or a.dtype.kind not in "fiub":
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        largest = float(np.nan_to_num(gap, nan=math.inf).max())
        scale = float(np.abs(y[np.isfinite(y)]).max(initial=0.0))
        gaps.append((largest, largest / scale if scale else largest))
    telling = [g for g in gaps if g[0] > ROUNDING] or gaps
    return {
        "max_abs": max((absolute for absolute, _ in gaps), default=0.0),
        "max_rel": max((relative for _, relative in telling), default=0.0),
    }


def _run(
    measurer: Any, model: bytes | Path, feeds: Mapping[str, NDArray[Any]], what: str, problems: list[str]
) -> Arrays | None:
    try:
        return list(measurer.run(model, feeds))
    except OnnxnasError as error:
        problems.append(f"{what} does not run: {error}")
        return None


def _run_rewritten(
    measurer: Any, model: ModelProto, feeds: Mapping[str, NDArray[Any]], what: str, problems: list[str]
) -> Arrays | None:
    with tempfile.TemporaryDirectory() as place:
        return _run(measurer, _servable(model, Path(place)), feeds, what, problems)


def _judge(told: Mapping[str, float | None], what: str, most: float, problems: list[str]) -> None:
    relative, absolute = told["max_rel"], told["max_abs"]
    if relative is None or absolute is None or absolute <= ROUNDING:
        return
    if not relative <= most:
        problems.append(f"{what}: max_rel is {relative:.1e}, expected {most:.0e} at most")


def _torch(
    seen: Inspection, feeds: Mapping[str, NDArray[Any]], reference: Arrays | None, problems: list[str]
) -> tuple[Any, dict[str, float | None]]:
    """The super-network, or None, and how far its maximal sub-network is from the reference."""
    from onnxnas import supernet

    try:
        network = supernet.SuperNetwork(seen.space)
    except OnnxnasError as error:
        problems.append(f"torch: {error}")
        return None, difference(None, None)
    found = _in_torch(network, seen.space.maximal(), feeds, "the maximal sub-network", problems)
    told = difference(found, reference)
    _judge(told, "torch", TORCH_TOLERANCE, problems)
    return network, told


def _in_torch(
    network: Any, subnet: Subnet, feeds: Mapping[str, NDArray[Any]], what: str, problems: list[str]
) -> Arrays | None:
    from onnxnas.supernet import numeric

    try:
        return numeric.run(network, subnet, feeds)
    except (OnnxnasError, RuntimeError, ValueError, IndexError, TypeError) as error:
        problems.append(f"{what} does not run in torch: {' '.join(str(error).split())[:200]}")
        return None


def _subnet(
    seen: Inspection,
    network: Any,
    measurer: Any,
    subnet: Subnet,
    feeds: Mapping[str, NDArray[Any]],
    problems: list[str],
) -> dict[str, Any]:
    own: list[str] = []
    what = f"sub-network {_short(subnet)}"
    found: Arrays | None = None
    try:
        model = graph.rewrite(seen.graph, seen.space.plan(subnet))
    except ModelError as error:
        own.append(f"{what} cannot be cut out: {error}")
    else:
        found = _run_rewritten(measurer, model, feeds, what, own)
    told = difference(None, None)
    if found is not None and network is not None:
        told = difference(found, _in_torch(network, subnet, feeds, what, own))
        _judge(told, what, TORCH_TOLERANCE, own)
    problems.extend(own)
    ratio = seen.space.cost(subnet).macs / max(1, seen.space.cost(Subnet()).macs)
    return {
        "subnet": subnet.to_json(),
        "macs_ratio": ratio,
        "runs": found is not None,
        "max_rel": told["max_rel"],
        "error": own[0] if own else None,
    }


def _short(subnet: Subnet) -> str:
    key = subnet.key()
    return key if len(key) <= 120 else f"{key[:117]}..."

"""Candidates in numbers of 8 bits, where `precision` has them searched or says that all have.

    precision: [fp32, int8]

The ranges of tensors are counted on training samples for each candidate anew, in the runtime that will serve it: they
depend on what is cut away. The baseline stays as the user gave it: gains are told against what there is today.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas import data, measure, precision, search
from onnxnas.errors import ConfigError, ModelError
from onnxnas.pipeline import build

if TYPE_CHECKING:
    import rewriters
    from onnxnas.data import DataSet
    from onnxnas.graph import Graph
    from onnxnas.pipeline.config import Config
    from onnxnas.types import Subnet

SAMPLES = 256  # that the ranges are counted on
CORRECTED = 64  # of these; that biases are corrected by
_KEPT = 1 << 26  # values of these samples; fewer large ones


def space(config: Config, whole: search.Space) -> search.Space:
    """The space `whole` with the numbers of its networks, if these are not the original's alone."""
    plain = config.precision == (precision.FLOATS,)
    return whole if plain else search.RoundedSpace(whole, config.precision)


def examine(config: Config, original: Graph, dataset: DataSet, content: bytes) -> None:
    """Round the user's model and run it. Raises ConfigError when it cannot be, or the runtime refuses it."""
    for name in config.precision:
        if name == precision.FLOATS:
            continue
        feeds = build.feeds(original, dataset, config.batch)
        with measure.Measurer(config.target, content, feeds, noise_floor=0.0) as measuring:
            try:
                rounder = Rounder(measuring, dataset, config.seed)
                made = rounder.rounded(build.fold(original.parts), {precision.EVERY: name})
            except ModelError as error:
                raise ConfigError(f"precision: {config.model} cannot be had in {name}: {error}") from error
            outcome = measuring.measure(made.to_bytes())
            if outcome.status != "ok":
                raise ConfigError(
                    f"precision: {config.runtime} cannot run {config.model} in {name}: {outcome.error}"
                )


def validate(subnet: Subnet, known: Graph) -> None:
    """Raises ConfigError when the precision of a sub-network names what is not there."""
    nodes = {node.name for node in known.nodes}
    for name, kind in subnet.precision.items():
        if name != precision.EVERY and name not in nodes:
            raise ConfigError(f"sub-network: got precision of '{name}'; there is no such node")
        if kind not in (precision.FLOATS, precision.INT8):
            raise ConfigError(
                f"sub-network: precision of '{name}' cannot be {kind!r}; "
                f"use {precision.FLOATS} or {precision.INT8}"
            )


class Rounder:
    """Makes networks have fewer bits, by ranges seen on some random samples of `dataset.train`."""

    def __init__(
        self, measuring: measure.Measurer, dataset: DataSet, seed: int, samples: int = SAMPLES
    ) -> None:
        self._measuring, self._data, self._seed, self._count = measuring, dataset, seed, samples
        self._batches: list[dict[str, Any]] = []

    @cached_property
    def most(self) -> int:
        """Steps that a weight may have in the runtime, see `precision.largest_weight`."""
        return precision.largest_weight(self._measuring.run)

    @property
    def notes(self) -> list[str]:
        """What the user should know of the numbers."""
        if self.most == precision.LARGEST:
            return []
        return [
            f"Weights of 8 bits have 7 here, up to {self.most} instead of {precision.LARGEST}: on this processor the "
            "runtime adds products in 16 bits, which larger ones do not fit."
        ]

    def rounded(self, parts: rewriters.Parts, wanted: Mapping[str, str]) -> rewriters.Parts:
        """The network at this precision, as `Subnet.precision` says it; as it is where that says nothing.

        Raises ModelError: nothing in it can be rounded, or it computes what is not finite; CandidateError, which is
        one, when it does not run.
        """
        if not wanted:
            return parts
        found = precision.Quantisable(parts, wanted, self.most)
        ranges = precision.seen(parts, found.tensors, self._measuring.run, self.samples())
        return precision.corrected(found, ranges, self._measuring.run, self._some())

    def _some(self) -> Iterator[dict[str, Any]]:
        """The inputs that biases are corrected by: of so many samples means are as good as of more."""
        seen = 0
        for batch in self.samples():
            if seen < CORRECTED:
                seen += len(next(iter(batch.values())))
                yield batch

    def samples(self) -> Iterator[dict[str, Any]]:
        """The inputs that the ranges are counted on, batch by batch."""
        if not self._batches:
            rng = np.random.default_rng([self._seed, 4])
            train = self._data.train
            count = min(self._count, max(1, _KEPT // build.values_of(train)))
            chosen = data.batches(train, self._data, build.run_batch(train), rng=rng, limit=count)
            self._batches = [x for x, _ in chosen]
        yield from self._batches

"""How candidates are served, where `search.serving` has that searched together with their structure.

    search:
      serving: {threads: [1, 2], batch: [1, 8], allow_spinning: [true, false]}

The target's own value is always among the choices of each. The baseline stays on the target itself: gains are told
against what there is today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxnas import measure, search
from onnxnas.errors import ConfigError
from onnxnas.pipeline import build
from onnxnas.pipeline.config import nearest

if TYPE_CHECKING:
    from onnxnas.data import DataSet
    from onnxnas.graph import Graph
    from onnxnas.pipeline.config import Config
    from onnxnas.types import Subnet


def choices(config: Config) -> Mapping[str, Sequence[Any]]:
    """By what is chosen: the target's own value, then the others. Raises ConfigError for what it does not have."""
    target = config.target
    own = {"threads": target.threads, "batch": target.batch, **measure.resolve_settings(target)}
    found: dict[str, Sequence[Any]] = {}
    for name, values in config.search.serving.items():
        if name not in own:
            raise ConfigError(
                f"search.serving: {target.runtime} has no '{name}' here{nearest(name, own)}; there are threads, batch, "
                "the runtime's settings, and what runtime_settings says"
            )
        found[name] = (own[name], *(v for v in dict.fromkeys(values) if v != own[name]))
    cores = len(measure.available_cores())
    if (most := max(found.get("threads", [1]))) > cores:
        raise ConfigError(f"search.serving: got {most} threads; this process may use {cores} cores")
    return found


def cores(config: Config) -> int:
    """How many the measuring process needs for the candidate with most threads."""
    searched: Sequence[int] = config.search.serving.get("threads", ())
    return max(config.threads, *searched) if searched else config.threads


def space(config: Config, whole: search.Space) -> search.Space:
    """The space `whole` with the ways of serving, if these are searched."""
    found = choices(config)
    return search.ServedSpace(whole, found) if found else whole


def examine(config: Config, original: Graph, dataset: DataSet, content: bytes) -> None:
    """Serve the user's model in each of the ways. Raises ConfigError for one that the runtime refuses."""
    found = choices(config)
    if not found:
        return
    feeds = build.feeds(original, dataset, config.batch)
    with measure.Measurer(config.target, content, feeds, noise_floor=0.0, cores=cores(config)) as measuring:
        for name, values in found.items():
            for value in values[1:]:
                target = config.target.served({name: value})
                served = measure.Served(target, build.feeds(original, dataset, target.batch))
                outcome = measuring.measure(content, served=served)
                if outcome.status != "ok":
                    raise ConfigError(
                        f"search.serving: the model cannot be served with {name} {value!r}: {outcome.error}"
                    )


class Serving:
    """Of one run: what a measurement of a candidate has to know. `feeds` makes inputs of so many samples."""

    def __init__(self, config: Config, feeds: Callable[[int], Mapping[str, Any]]) -> None:
        self._config, self._made = config, feeds
        self._feeds: dict[int, Mapping[str, Any]] = {}

    def of(self, subnet: Subnet) -> measure.Served | None:
        """None: as the target says."""
        if not subnet.serving:
            return None
        target = self._config.target.served(subnet.serving)
        if target.batch not in self._feeds:
            self._feeds[target.batch] = self._made(target.batch)
        return measure.Served(target, self._feeds[target.batch])

    def samples(self, subnet: Subnet) -> float:
        """How many times the samples of an inference of the baseline one of this candidate has."""
        own = self._config.batch
        return float(subnet.serving.get("batch", own)) / own

"""What the stages of one run share, each loaded when first needed.

baseline, original   the user's model: a copy in RUN, and as a graph
data, metric         what the user gave to train and judge with
space, graph         what `prepare` left in RUN
network              the super-network with the weights that `train` left in RUN
"""

from __future__ import annotations

import dataclasses
import shlex
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from onnxnas.errors import RunError
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline import files, prepared
from onnxnas.pipeline.events import Silent
from onnxnas.pipeline.run_dir import RunDirectory

if TYPE_CHECKING:
    from onnxnas.data import DataSet, Metric
    from onnxnas.graph import Graph
    from onnxnas.pipeline.config import Config
    from onnxnas.pipeline.events import Reporter
    from onnxnas.pipeline.glances import Glances
    from onnxnas.pipeline.serving import Serving
    from onnxnas.space import SearchSpace
    from onnxnas.supernet import SuperNetwork
    from onnxnas.train import Glance


class Line:
    """One run being worked on. The stages read from it and write to its directory only.

    `original` and `data` may be given when they have been loaded already.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        reporter: Reporter,
        *,
        original: Graph | None = None,
        data: DataSet | None = None,
    ) -> None:
        self.run = run
        self.config = config
        self.reporter = reporter
        if original is not None:
            self.__dict__["original"] = original
        if data is not None:
            self.__dict__["data"] = data

    @classmethod
    def at(cls, path: str | Path, reporter: Reporter | None = None) -> Line:
        """The run in this directory, as it was begun. Raises RunError, ConfigError."""
        run = RunDirectory(path)
        run.require()
        return cls(run, configuration.load(run / "config.yaml"), reporter or Silent())

    def say(self, text: str) -> None:
        """One line to the user and to log.txt."""
        self.run.log(text)
        self.reporter.say(text)

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        """Progress to the user."""
        self.reporter.step(stage, done, total, text)

    @property
    def command(self) -> str:
        """A command that does this run again; config.yaml has every setting."""
        words = [
            "onnxnas",
            "optimize",
            self.config.model,
            "--data",
            self.config.data,
            "-o",
            self.config.output,
        ]
        return shlex.join([*words, "--config", str(self.run / "config.yaml")])

    @cached_property
    def identity(self) -> dict[str, str]:
        """{"model_sha256", "data_sha256"} of what this run was begun with."""
        begun = files.read_json(self.run / "stages" / "run.json")
        return {key: begun[key] for key in ("model_sha256", "data_sha256")}

    @cached_property
    def model_notes(self) -> tuple[str, ...]:
        """Sentences about what was done to the user's model before anything else."""
        return tuple(files.read_json(self.run / "stages" / "run.json").get("notes", ()))

    @cached_property
    def baseline(self) -> bytes:
        """The user's model; the one that speed-ups and drops are told against."""
        path = self.run / "baseline.onnx"
        if not path.is_file():
            raise RunError(f"{path} is missing: this run cannot continue; start another one")
        return path.read_bytes()

    @cached_property
    def original(self) -> Graph:
        """The user's model as a graph, with the digest of the file that the user gave."""
        from onnxnas import graph

        given = self.run / "baseline.onnx"
        loaded = graph.load(given, shapes=self.config.shapes, least_opset=self.config.least_opset)
        return dataclasses.replace(loaded, digest=self.identity["model_sha256"])

    @cached_property
    def space(self) -> SearchSpace:
        """The search space over the prepared graph. Raises RunError when its files were changed."""
        self.run.verify("prepare")
        return prepared.load(self.run, self.config.shapes)

    @property
    def graph(self) -> Graph:
        """The prepared graph: canonical, BatchNorm in place, most important units first."""
        return self.space.graph

    @cached_property
    def data(self) -> DataSet:
        """The data set, the same as when the run was begun. Raises DataError, RunError."""
        from onnxnas import data

        loaded = data.load(
            self.config.data,
            [self.original.tensors[name] for name in self.original.inputs],
            outputs=[self.original.tensors[name] for name in self.original.outputs],
            seed=self.config.seed,
        )
        if loaded.digest != self.identity["data_sha256"]:
            raise RunError(
                f"{self.run.path}: the data {self.config.data} is not what this run was begun with "
                f"(got {loaded.digest[:12]}..., expected {self.identity['data_sha256'][:12]}...); start another run"
            )
        return loaded

    @cached_property
    def finishing(self) -> DataSet:
        """The data that finalists are fine-tuned on, see `finalise.samples`. Raises DataError."""
        return self.data.with_validation() if self.config.finalise.samples == "all" else self.data

    @cached_property
    def glance(self) -> Glance:
        """What looks at candidates of the search before they are judged."""
        from onnxnas.pipeline.glances import glance

        return glance(self.network, self.data, self.config)

    @cached_property
    def glances(self) -> Glances:
        """What that said, kept in RUN."""
        from onnxnas.pipeline.glances import Glances

        return Glances(self.run / "glances.jsonl", lambda subnet: self.glance.loss(subnet))

    @cached_property
    def serving(self) -> Serving:
        """How its candidates are served."""
        from onnxnas.pipeline import build
        from onnxnas.pipeline.serving import Serving

        return Serving(self.config, lambda batch: build.feeds(self.original, self.data, batch))

    @cached_property
    def metric(self) -> Metric:
        """The quality metric of the data set."""
        from onnxnas import data

        return data.metric_of(self.data)

    @cached_property
    def device(self) -> str:
        """Where this process trains, see `train.chosen_device`."""
        from onnxnas import train

        return train.chosen_device(self.config.device)

    @cached_property
    def network(self) -> SuperNetwork:
        """The trained super-network."""
        from onnxnas.pipeline import trained

        self.run.verify("train")
        return trained.network(self.run, self.space, self.device)

"""Training strategies side by side: the same network, data, seed and time for each, and one table.

    python tools/bench_training.py RUN [--minutes 5] [--variants sandwich progressive ...] [--split val]

RUN is a run whose `prepare` stage is complete (`onnxnas train` was begun). Every variant trains a fresh super-network
for the same time on the clock, then the same sub-networks are judged with statistics recalibrated: the largest, even
ones at a third and two thirds of the way down, the smallest, and random ones. Results go to RUN/bench_training.json as
they come (an interrupted comparison goes on) and to standard output as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxnas import train
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline import trained
from onnxnas.pipeline.events import Silent
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.run_dir import RunDirectory
from onnxnas.space import SearchSpace
from onnxnas.train.sampling import SizedSampler
from onnxnas.types import Subnet

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "sandwich": {},
    "sandwich, in place": {"in_place": True},
    "sandwich, no teacher": {"distillation": 0.0},
    "sandwich, two random": {"random_subnets": 2},
    "sandwich, any size": {"smallest": 0.0},
    "sandwich, averaged weights": {"ema": 0.998},
    "sandwich, lr 0.05": {"lr": 0.05},
    "sandwich, lr 0.01": {"lr": 0.01},
    "single stage": {"strategy": "single_stage", "random_subnets": 3},
    "progressive": {"strategy": "progressive", "random_subnets": 3},
}
RANDOM = 12


def judged(space: SearchSpace) -> dict[str, list[Subnet]]:
    """The sub-networks that all variants are judged by, in columns."""
    upper = np.array([len(d.choices) - 1 for d in space.dimensions])
    ordered = np.array([d.kind != "depth" for d in space.dimensions])
    even = [space.decode(np.rint(np.where(ordered, f, 0) * upper).astype(np.int64)) for f in (1 / 3, 2 / 3)]
    sampler, rng = SizedSampler(space, 0.2), np.random.default_rng(7)
    return {
        "max": [space.maximal()],
        "even 1/3": even[:1],
        "even 2/3": even[1:],
        "min": [sampler.minimal()],
        f"mean of {RANDOM} random": [sampler.random(rng) for _ in range(RANDOM)],
    }


def compare(line: Line, variant: Mapping[str, Any], minutes: float, split: str) -> dict[str, Any]:
    """Train one variant and judge it."""
    settings = line.config.train.model_copy(
        update={"epochs": 1e6, "max_seconds": 60 * minutes, "eval_every": 0.0, "processes": 1, **variant}
    )
    network = trained.fresh(line.space, line.config.device)
    result = train.train(
        network, line.data, settings, directory=None, seed=line.config.seed, metric=line.metric
    )
    judge = train.Judge(network, line.data, split, line.metric, seed=line.config.seed)
    columns = {
        name: float(np.mean([judge.quality(subnet) for subnet in subnets]))
        for name, subnets in judged(line.space).items()
    }
    return {"epochs": result.epochs, "images_per_second": result.images_per_second, "quality": columns}


def table(found: Mapping[str, Mapping[str, Any]], space: SearchSpace) -> None:
    """Print what there is."""
    whole = space.cost(Subnet()).macs
    shares = {
        name: whole / np.mean([space.cost(s).macs for s in subnets])
        for name, subnets in judged(space).items()
    }
    names = [f"{name} ({share:.2f}x fewer MACs)" for name, share in shares.items()]
    print(f"| variant | epochs | images/s | {' | '.join(names)} |")
    print("| --- |" + " --- |" * (len(names) + 2))
    for name, body in found.items():
        values = " | ".join(f"{value:.2f}" for value in body["quality"].values())
        print(f"| {name} | {body['epochs']:.2f} | {body['images_per_second']:.0f} | {values} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--split", choices=("val", "test"), default="val")
    options = parser.parse_args()
    run = RunDirectory(options.run)
    line = Line(run, configuration.load(run / "config.yaml"), Silent())
    place = run / "bench_training.json"
    found: dict[str, Any] = json.loads(place.read_text()) if place.is_file() else {}
    for name in options.variants:
        key = f"{name}, {options.minutes:g} min, {options.split}"
        if key not in found:
            found[key] = compare(line, VARIANTS[name], options.minutes, options.split)
            place.write_text(json.dumps(found, indent=1))
            print(f"{key}: {found[key]}", file=sys.stderr)
    table(found, line.space)


if __name__ == "__main__":
    main()

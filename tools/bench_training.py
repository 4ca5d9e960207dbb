"""Training strategies side by side: the same network, data, seed and processor time for each, and one table.

    python tools/bench_training.py RUN [--minutes 8] [--variants sandwich progressive ...] [--split val]

RUN is a run whose `prepare` stage is complete (`onnxnas train` was begun). Every variant trains a fresh super-network
on one thread for the same time of the processor, which other work on the machine does not use up; then the same
sub-networks are judged, statistics recalibrated, on 2,000 samples: the largest, even ones, the smallest, and random
ones of two ranges of size. Results go to RUN/bench_training/ as they come, so that an interrupted comparison goes on
and several processes may share one, and to standard output as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxnas import train
from onnxnas.pipeline import files, prepared, trained
from onnxnas.pipeline.line import Line
from onnxnas.space import SearchSpace
from onnxnas.train.sampling import SizedSampler
from onnxnas.types import Subnet

ONE: Mapping[str, Any] = {"strategy": "single_stage", "random_subnets": 1}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "sandwich": {"strategy": "sandwich"},
    "sandwich, in place": {"strategy": "sandwich", "in_place": True},
    "sandwich, no teacher": {"strategy": "sandwich", "distillation": 0.0},
    "sandwich, lr 0.05": {"strategy": "sandwich", "lr": 0.05},
    "sandwich, two random": {"strategy": "sandwich", "random_subnets": 2},
    "progressive, three random": {"strategy": "progressive", "random_subnets": 3},
    "progressive, one random": {"strategy": "progressive", "random_subnets": 1},
    "single stage, three random": {"strategy": "single_stage", "random_subnets": 3},
    "alternating": {"strategy": "alternating", "random_subnets": 1},
    "one random": ONE,
    "one random, no teacher": {**ONE, "distillation": 0.0},
    "one random, teacher only": {**ONE, "distillation": 1.0},
    "one random, any size": {**ONE, "smallest": 0.0},
    "one random, averaged weights": {**ONE, "ema": 0.998},
    "one random, batch of 64": {**ONE, "batch_size": 64},
    "one random, lr 0.05": {**ONE, "lr": 0.05},
    "one random, lr 0.01": {**ONE, "lr": 0.01},
    "one random, units by l2": {**ONE, "importance": "l2"},
    "one random, units by taylor": {**ONE, "importance": "taylor"},
    "one random, units as they are": {**ONE, "importance": "none"},
}
RANDOM = 24
RANGES = ((1.2, 1.8), (1.8, 4.0))  # fewer MACs than the original, times


def judged(space: SearchSpace) -> dict[str, list[Subnet]]:
    """The sub-networks that all variants are judged by."""
    upper = np.array([len(d.choices) - 1 for d in space.dimensions])
    ordered = np.array([d.kind != "depth" for d in space.dimensions])
    even = [space.decode(np.rint(np.where(ordered, f, 0) * upper).astype(np.int64)) for f in (1 / 3, 1 / 2)]
    sampler, rng = SizedSampler(space, 0.2), np.random.default_rng(7)
    drawn = [sampler.random(rng) for _ in range(RANDOM)]
    random = {
        f"random, {low:g} to {high:g}x": [s for s in drawn if low <= 1 / sampler.share(s) < high]
        for low, high in RANGES
    }
    return {"max": [space.maximal()], "even": even, "min": [sampler.minimal()], **random}


def space_of(line: Line, importance: str) -> SearchSpace:
    """The run's search space, units sorted by this rule."""
    if importance == line.config.importance:
        return line.space
    config = line.config.model_copy(update={"importance": importance})
    return prepared.made(line.original, prepared.missing(line.original, config), config, line.data)


def compare(line: Line, variant: Mapping[str, Any], minutes: float, split: str) -> dict[str, Any]:
    """Train one variant and judge it."""
    space = space_of(line, variant.get("importance", line.config.importance))
    fixed = {"epochs": 1e6, "max_seconds": 60 * minutes, "eval_every": 0.0, "processes": 1}
    own = {key: value for key, value in variant.items() if key != "importance"}
    settings = line.config.train.model_copy(update={**fixed, **own})
    network = trained.fresh(space, line.device)
    result = train.train(
        network,
        line.data,
        settings,
        directory=None,
        seed=line.config.seed,
        metric=line.metric,
        clock=time.process_time,
    )
    judge = train.Judge(network, line.data, split, line.metric, limit=2000, seed=line.config.seed)
    quality = {
        name: [round(judge.quality(subnet), 2) for subnet in subnets]
        for name, subnets in judged(space).items()
    }
    return {"epochs": result.epochs, "images_per_second": result.images_per_second, "quality": quality}


def table(found: Mapping[str, Mapping[str, Any]], space: SearchSpace) -> str:
    """What there is, as Markdown; of several random sub-networks the mean and the best."""
    whole = space.cost(Subnet()).macs
    fewer = {name: [whole / space.cost(s).macs for s in subnets] for name, subnets in judged(space).items()}
    heads = [
        f"max, min ({fewer['min'][0]:.1f}x)",
        "even (" + ", ".join(f"{f:.1f}x" for f in fewer["even"]) + ")",
    ]
    heads += [f"{name}: mean, best of {len(fewer[name])}" for name in fewer if name.startswith("random")]
    lines = [f"| variant | epochs | {' | '.join(heads)} |", "| --- |" + " --- |" * (len(heads) + 1)]
    for name, body in found.items():
        quality: Mapping[str, Sequence[float]] = body["quality"]
        cells = [[quality["max"][0], quality["min"][0]], quality["even"]]
        cells += [[float(np.mean(v)), max(v)] for key, v in quality.items() if key.startswith("random")]
        told = " | ".join(", ".join(f"{value:.2f}" for value in cell) for cell in cells)
        lines.append(f"| {name} | {body['epochs']:.2f} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, for each")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--split", choices=("val", "test"), default="val")
    options = parser.parse_args()
    torch.set_num_threads(1)
    line = Line.at(options.run)
    found: dict[str, Any] = {}
    for name in options.variants:
        key = re.sub(r"[^a-z0-9.]+", "-", f"{name}, {options.minutes:g} min, {options.split}")
        place = line.run / "bench_training" / f"{key}.json"
        if not place.is_file():
            place.parent.mkdir(exist_ok=True)
            files.write_json(place, compare(line, VARIANTS[name], options.minutes, options.split))
        found[name] = files.read_json(place)
        print(f"{name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
    print(table(found, line.space))


if __name__ == "__main__":
    main()

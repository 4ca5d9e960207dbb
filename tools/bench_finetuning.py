"""How many processes fine-tune one finalist fastest: one with all cores, or several together.

    python tools/bench_finetuning.py RUN --trial 99 [--processes 2] [--rounds 5]

RUN is a run whose search is complete. Both ways are timed in turns, as the finalise stage does it to choose (a few
steps each, the teacher's answers being there): samples per second of each, and the ratio of the rounds with its 95 %
interval by bootstrap.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxnas import measure, search
from onnxnas.pipeline.crew import Crew
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.stages.search import wanted
from onnxnas.types import Subnet
from tools.bench_supernet import interval


def rates(line: Line, subnet: Subnet, processes: int, rounds: int) -> tuple[list[float], list[float]]:
    """Samples per second of one process, and of several, in turns."""
    found: tuple[list[float], list[float]] = ([], [])
    with Crew(line, 1) as crew:
        for _ in range(rounds):
            for size, taken in zip((1, processes), found, strict=True):
                request = {"do": "speed", "subnet": subnet.to_json(), **crew.together(size)}
                taken.append(crew.map([request])[0]["samples_per_second"])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--trial", type=int, nargs="+", required=True, help="numbers in trials.csv")
    parser.add_argument("--processes", type=int, default=len(measure.available_cores()))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    line = Line.at(given.run)
    trials = {t.number: t for t in search.read_trials_csv(line.run / "trials.csv", wanted(line))}
    whole = line.space.cost(Subnet()).macs
    print(f"| trial | fewer MACs | one process, samples/s | {given.processes} processes, samples/s | ratio |")
    print("|---|---|---|---|---|")
    for number in given.trial:
        subnet = trials[number].subnet
        one, several = rates(line, subnet, given.processes, given.rounds)
        ratio, low, high = interval([b / a for a, b in zip(one, several, strict=True)])
        cells = [
            f"{np.median(one):.0f}",
            f"{np.median(several):.0f}",
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        ]
        print(f"| {number} | {whole / line.space.cost(subnet).macs:.2f}x | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

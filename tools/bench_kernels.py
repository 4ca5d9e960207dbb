"""What the learned kernel transformations of a trained super-network are worth: one table.

    python tools/bench_kernels.py RUN [--limit 2000]

RUN is a run whose `train` stage is complete. For each largest kernel size that the space offers, all larger kernels are
cropped to it and nothing else is changed. That sub-network is judged three times on validation samples, statistics
recalibrated: with the weights of the original file (a plain centre crop), with the weights of the super-network but
the identity for each kernel matrix, and with the kernel matrices that were learned (Cai et al., Once-for-All, 2020).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxnas import train
from onnxnas.pipeline import trained
from onnxnas.pipeline.line import Line
from onnxnas.space import SearchSpace
from onnxnas.supernet import SuperNetwork
from onnxnas.types import Subnet


def uniform(space: SearchSpace, most: int) -> Subnet:
    """All else as in the original, no kernel larger than `most` x `most` where that can be."""
    sizes = {k.id: max((c for c in k.choices if c[0] <= most), default=k.choices[-1]) for k in space.kernels}
    return Subnet(kernel={k.id: sizes[k.id] for k in space.kernels if sizes[k.id] != k.size})


def with_identities(network: SuperNetwork) -> SuperNetwork:
    """The same weights, every kernel matrix the identity."""
    plain = SuperNetwork(network.space)
    own = network.weights()
    plain.load({n: np.eye(len(v), dtype=v.dtype) if n.startswith("kernel:") else v for n, v in own.items()})
    return plain


def rows(line: Line, limit: int) -> Iterator[str]:
    """One line of the table for each kernel size, the original's first."""
    networks = [trained.fresh(line.space, "cpu"), with_identities(line.network), line.network]
    judges = [
        train.Judge(net, line.data, "val", line.metric, limit=limit, seed=line.config.seed)
        for net in networks
    ]
    whole = line.space.cost(Subnet()).macs
    for size in sorted({choice[0] for k in line.space.kernels for choice in k.choices}, reverse=True):
        subnet = uniform(line.space, size)
        quality = " | ".join(f"{judge.quality(subnet):.2f}" for judge in judges)
        yield f"| {size}x{size} | {whole / line.space.cost(subnet).macs:.2f}x | {quality} |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--limit", type=int, default=2000, help="validation samples")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    line = Line.at(given.run)
    line.run.verify("train")
    if not line.space.kernels:
        raise SystemExit(f"{given.run}: no elastic kernels in this model; see `onnxnas inspect`")
    print("| kernels at most | fewer MACs | original, cropped | super-network, cropped | super-network |")
    print("|---|---|---|---|---|")
    for row in rows(line, given.limit):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

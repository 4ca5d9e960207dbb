"""Hand-made results: a tiny model and the files of a whole run, without running anything."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxnas.types import Subnet

SHA = "ab" * 32


def tiny_model(channels: int = 3) -> onnx.ModelProto:
    """Relu(x * w + b) over [batch, channels], in one Mul, one Add and one Relu."""
    w = np.linspace(0.5, 2.0, channels, dtype=np.float32)
    b = np.linspace(-1.0, 1.0, channels, dtype=np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["scaled"], name="scale"),
        helper.make_node("Add", ["scaled", "b"], ["shifted"], name="shift"),
        helper.make_node("Relu", ["shifted"], ["out/y:0"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels])],
        [helper.make_tensor_value_info("out/y:0", TensorProto.FLOAT, ["batch", channels])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def tiny_reference(x: np.ndarray[Any, Any], channels: int = 3) -> np.ndarray[Any, Any]:
    """What `tiny_model` computes."""
    w = np.linspace(0.5, 2.0, channels, dtype=np.float32)
    b = np.linspace(-1.0, 1.0, channels, dtype=np.float32)
    return np.maximum(x * w + b, 0.0)


def space(blocks: int = 6, groups: int = 10) -> dict[str, Any]:
    """A search space's JSON: a block for every two convolutions, a group for every convolution."""
    return {
        "schema": 1,
        "model_sha256": SHA,
        "elastic": ["depth", "width", "kernel"],
        "blocks": [
            {
                "id": f"b{i}",
                "entry": f"t{i}",
                "exit": f"t{i + 1}",
                "nodes": [f"stage{i // 2}.{i}.conv1", f"stage{i // 2}.{i}.conv2"],
                "kind": "residual",
                "chain": i // 2,
                "name": f"stage{i // 2}.{i}",
            }
            for i in range(blocks)
        ],
        "groups": [
            {
                "id": f"g{i}",
                "name": "",
                "size": 16 << (i // 4),
                "choices": [16 << (i // 4), 8 << (i // 4), 4 << (i // 4)],
                "producers": [f"stage{i // 4}.{i // 2}.conv{i % 2 + 1}"],
                "consumers": [f"next{i}"],
                "order": list(range(16 << (i // 4))),
            }
            for i in range(groups)
        ],
        "kernels": [
            {
                "id": f"k{i}",
                "node": f"stage0.{i}.conv1",
                "size": [5, 5],
                "choices": [[5, 5], [3, 3]],
            }
            for i in range(2)
        ],
        "frozen": [{"node": "fc", "what": "width", "reason": "graph output"}],
    }


def subnet(level: int) -> Subnet:
    """A sub-network of `space()`; a higher level is smaller. Level 0 is the original."""
    return Subnet(
        skip=frozenset(f"b{i}" for i in range(1, 1 + min(level, 5))),
        width={f"g{i}": (16 << (i // 4)) // (2 if level < 4 else 4) for i in range(10) if i < 3 * level},
        kernel={"k0": (3, 3)} if level > 1 else {},
    )


def _interval(value: float, spread: float, key: str = "value") -> dict[str, float]:
    return {key: round(value, 4), "lo": round(value - spread, 4), "hi": round(value + spread, 4)}


def member(level: int) -> dict[str, Any]:
    """A Pareto member as in result.json."""
    fraction = 1.0 / (1.0 + 0.45 * level)
    return {
        "bundle": f"pareto/rank_{level:02d}",
        "subnet": subnet(level).to_json(),
        "quality": round(91.7 - 0.35 * level**1.6, 2),
        "latency_ms": _interval(1.9 * fraction, 0.02, "p50"),
        "macs": int(40_600_000 * fraction**1.5),
        "params": int(269_722 * fraction),
        "bytes": int(1_100_000 * fraction),
        "speedup": _interval(1 / fraction, 0.03),
    }


def result(members: int = 4) -> dict[str, Any]:
    """A result.json."""
    base = {key: value for key, value in member(0).items() if key not in ("bundle", "subnet", "speedup")}
    pareto = [member(level) for level in range(1, members + 1)]
    return {
        "schema": 1,
        "metric": {"name": "top1", "unit": "%"},
        "baseline": base,
        "best": pareto[1],
        "pareto": pareto,
        "supernet_max_quality": 91.4,
        "evaluations": 120,
        "seconds": {"train": 812.0, "search": 640.5, "finalise": 120.25},
        "notes": ["no val given: a stratified 10 % of train taken; the original model was trained on it"],
    }


def write_run(directory: Path, trials: int = 120, *, hostile: str = "") -> Path:
    """A complete run directory; `hostile` is put wherever text comes from a file."""
    rng = np.random.default_rng(7)
    directory.mkdir(parents=True, exist_ok=True)
    body = space()
    body["groups"][0]["name"] = hostile
    body["blocks"][0]["name"] = hostile or "stage0.0"
    (directory / "space.json").write_text(json.dumps(body))
    found = result()
    found["notes"].append(hostile)
    (directory / "result.json").write_text(json.dumps(found))
    (directory / "environment.json").write_text(
        json.dumps({"cpu": "Some CPU " + hostile, "cores": 2, "onnxruntime": "1.31.1", "python": "3.11.7"})
    )
    (directory / "config.yaml").write_text(
        json.dumps(
            {"model": "resnet20.onnx" + hostile, "data": "cifar10.yaml", "objectives": ["latency"], "seed": 0}
        )
    )
    with (directory / "trials.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        objectives = ["quality", "latency_ms"]
        bounds = [f"{name}_{end}" for name in objectives for end in ("lo", "hi")]
        table.writerow(
            [
                "number",
                "status",
                "seconds",
                "error",
                *objectives,
                *bounds,
                "macs",
                "params",
                "skip",
                "width",
                "kernel",
            ]
        )
        for i in range(trials):
            if i % 17 == 16:
                table.writerow(
                    [i, "crashed", 1.2, "signal 11 " + hostile, *[""] * 6, "", "", "[]", "{}", "{}"]
                )
                continue
            size = float(rng.uniform(0.2, 1.0))
            latency = 1.9 * size
            quality = 91.7 - 9 * (1 - size) ** 2 - float(rng.exponential(2.5)) * (1 - 0.5 * i / trials)
            own = subnet(int(rng.integers(0, 5))).to_json()
            table.writerow(
                [i, "ok", 1.2, "", quality, latency, quality, quality, latency * 0.98, latency * 1.02]
                + [int(40.6e6 * size), int(269722 * size)]
                + [json.dumps(own[key]) for key in ("skip", "width", "kernel")]
            )
    with (directory / "pareto.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(
            ["rank", "bundle", "quality", "latency_ms_p50", "latency_ms_lo", "latency_ms_hi"]
            + ["speedup", "speedup_lo", "speedup_hi", "macs", "params", "bytes", "subnet"]
        )
        for rank, one in enumerate(found["pareto"], 1):
            measured = [one["quality"], *one["latency_ms"].values(), *one["speedup"].values()]
            cost = [one["macs"], one["params"], one["bytes"]]
            table.writerow([rank, one["bundle"], *measured, *cost, json.dumps(one["subnet"])])
    (directory / "supernet").mkdir(exist_ok=True)
    with (directory / "supernet" / "log.jsonl").open("w") as stream:
        for step in range(600):
            row = {
                "epoch": step // 60,
                "step": step,
                "seconds": step * 1.3,
                "lr": 0.02 * (1 + np.cos(np.pi * step / 600)) / 2,
                "loss": 0.4 + np.exp(-step / 150) + 0.05 * float(rng.standard_normal()),
                "images_per_second": 900.0,
            }
            stream.write(json.dumps(row) + "\n")
            if step % 60 == 59:
                epoch = step // 60
                quality = {"max": 88 + epoch * 0.35, "min": 45 + 4 * epoch, "random_0": 60 + 2.5 * epoch}
                stream.write(json.dumps({"epoch": epoch, "eval": quality}) + "\n")
    return directory

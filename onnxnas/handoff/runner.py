#!/usr/bin/env python3
"""Run this bundle's model with the settings it was measured with.

Needs numpy and the runtime that runtime.json names (onnxruntime, or openvino), nothing else.

    python run.py                                   the stored sample inputs, if there are any
    python run.py --input in.npz --output out.npz   arrays by input name; outputs by output name
    python run.py --benchmark                       latency on this machine

From Python: `model = load(folder); outputs = model({"x": array})`, both by name.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Feeds = Mapping[str, "np.ndarray[Any, Any]"]
Model = Callable[[Feeds], dict[str, "np.ndarray[Any, Any]"]]


def load(folder: str | Path) -> Model:
    """Make the model in `folder` ready; returns a function from inputs to outputs, both by name."""
    folder = Path(folder)
    target = json.loads((folder / "runtime.json").read_text(encoding="utf-8"))
    os.environ.update({str(k): str(v) for k, v in target.get("environment", {}).items()})
    kinds = {"onnxruntime": _onnxruntime, "openvino": _openvino}
    if target["runtime"] not in kinds:
        raise SystemExit(f"runtime.json asks for {target['runtime']!r}; this script knows {sorted(kinds)}")
    return kinds[target["runtime"]](str(folder / "model.onnx"), target)


def _onnxruntime(file: str, target: Mapping[str, Any]) -> Model:
    import onnxruntime as ort

    options = ort.SessionOptions()
    levels = {"disabled": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC"}
    levels |= {"extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
    for key, value in {**_threads("intra_op_num_threads", target), **target.get("settings", {})}.items():
        if key == "config":
            for entry, text in value.items():
                options.add_session_config_entry(entry, str(text))
        elif key == "allow_spinning":
            for pool in ("intra_op", "inter_op"):
                options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(value)))
        elif key == "execution_mode":
            options.execution_mode = getattr(ort.ExecutionMode, f"ORT_{value.upper()}")
        elif key == "graph_optimization_level":
            options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, levels[value])
        elif hasattr(options, key):
            setattr(options, key, value)
        else:
            raise SystemExit(f"runtime.json: onnxruntime {ort.__version__} has no session option {key!r}")
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def model(feeds: Feeds) -> dict[str, np.ndarray[Any, Any]]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return model


def _openvino(file: str, target: Mapping[str, Any]) -> Model:
    import openvino as ov

    settings = {**_threads("INFERENCE_NUM_THREADS", target), **target.get("settings", {})}
    compiled = ov.Core().compile_model(file, "CPU", settings)
    request = compiled.create_infer_request()
    names = target.get("outputs") or [port.get_any_name() for port in compiled.outputs]

    def model(feeds: Feeds) -> dict[str, np.ndarray[Any, Any]]:
        results = request.infer(dict(feeds))
        return {name: np.array(results[i]) for i, name in enumerate(names)}

    return model


def _threads(option: str, target: Mapping[str, Any]) -> dict[str, Any]:
    return {option: int(target["threads"])} if target.get("threads") else {}


def samples(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stored sample inputs and the outputs they gave when the bundle was made; both may be empty."""
    file = Path(folder) / "samples.npz"
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    if file.is_file():
        with np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                (inputs if key.startswith("in:") else outputs)[key.partition(":")[2]] = arrays[key]
    return inputs, outputs


def save_arrays(file: str | Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write an .npz; unlike `numpy.savez` it takes any name."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(value), allow_pickle=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the model of this bundle.")
    parser.add_argument(
        "--input", metavar="FILE.npz", help="arrays by input name (default: the stored samples)"
    )
    parser.add_argument("--output", metavar="FILE.npz", help="write the outputs here")
    parser.add_argument("--benchmark", action="store_true", help="time single calls")
    parser.add_argument("--repeats", type=int, default=200, help="timed calls of --benchmark")
    wanted = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parent

    if wanted.input:
        with np.load(wanted.input, allow_pickle=False) as arrays:
            feeds = {key: arrays[key] for key in arrays.files}
        expected: dict[str, Any] = {}
    else:
        feeds, expected = samples(folder)
        if not feeds:
            parser.error("this bundle has no stored samples: give --input FILE.npz")
    model = load(folder)
    outputs = model(feeds)
    for name, value in outputs.items():
        shape = "x".join(map(str, value.shape))
        line = f"{name}: {shape} {value.dtype} " + np.array2string(value.reshape(-1)[:6], precision=5)
        if name in expected and expected[name].size:
            largest = max(float(np.abs(expected[name]).max()), 1e-30)
            line += (
                f"  max difference from stored / max: {np.abs(value - expected[name]).max() / largest:.2e}"
            )
        print(line)
    if wanted.output:
        save_arrays(wanted.output, outputs)
    if wanted.benchmark:
        _benchmark(model, feeds, max(wanted.repeats, 1))
    return 0


def _benchmark(model: Model, feeds: Feeds, repeats: int) -> None:
    for _ in range(max(repeats // 10, 3)):
        model(feeds)
    times = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter_ns()
        model(feeds)
        times[i] = (time.perf_counter_ns() - start) / 1e6
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    print(f"latency ms: p50 {p50:.3f}  p90 {p90:.3f}  p99 {p99:.3f}  ({repeats} calls)")


if __name__ == "__main__":
    sys.exit(main())

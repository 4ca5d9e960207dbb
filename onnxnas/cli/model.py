"""Commands about one model: export, inspect, check, extract, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxnas.cli import output
from onnxnas.cli.options import AsJson, Debug, Model, Output, Seed, Shapes, Verbose, shapes
from onnxnas.errors import CheckFailed, ConfigError, RunError


def export(
    function: Annotated[
        str, typer.Argument(help="module.py:function that returns a torch module.", show_default=False)
    ],
    inputs: Annotated[
        list[str],
        typer.Option("--input", help="NAME=1,3,32,32, or NAME=1,128:int64; repeatable.", show_default=False),
    ],
    output_: Output,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A safetensors file of the state dict.")
    ] = None,
    exporter: Annotated[
        str, typer.Option("--exporter", help="torchscript keeps BatchNormalization, dynamo folds it.")
    ] = "torchscript",
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """A torch model to ONNX: BatchNorm kept, dynamic batch, checked against torch.

    Example: onnxnas export nets.py:resnet20 --input x=1,3,32,32 --weights resnet20.safetensors -o resnet20.onnx
    """
    from onnxnas import exporting

    if exporter not in ("torchscript", "dynamo"):
        raise ConfigError(f"--exporter {exporter}: expected torchscript or dynamo")
    specs = [exporting.parse_input(text) for text in inputs]
    chosen: Any = exporter
    done = exporting.export(function, specs, output_, weights=weights, exporter=chosen, seed=seed)
    if as_json:
        told = {"schema": 1, "path": str(done.path), "bytes": done.path.stat().st_size, "opset": done.opset}
        output.document({**told, "max_abs": done.max_abs, "max_rel": done.max_rel, "notes": list(done.notes)})
        return
    for note in done.notes:
        output.line(note)
    output.line(f"{done.path}: opset {done.opset}; torch against ONNX Runtime: max_rel {done.max_rel:.1e}")


def inspect(
    model: Model,
    shape: Shapes = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """What can change in this model and what cannot, and why.

    Example: onnxnas inspect resnet50.onnx --json
    """
    from onnxnas.pipeline.inspect import inspect as run

    body = run(model, shapes=shapes(shape)).to_json()
    if as_json:
        output.document(body)
        return
    output.line(f"{model}: {body['macs']:,} MACs, {body['params']:,} weights, opset {body['model']['opset']}")
    output.line(f"sub-networks: 10^{body['log10_subnetworks']:.1f}")
    if body["blocks"]:
        rows = [
            (
                b["id"],
                b["kind"],
                str(b["chain"]),
                output.thousands(b["macs"]),
                output.thousands(b["params"]),
                b["exit"],
            )
            for b in body["blocks"]
        ]
        output.table("skippable blocks", ("id", "kind", "chain", "MACs", "weights", "exit"), rows)
    if body["width_groups"]:
        groups = [
            (g["id"], str(g["size"]), _choices(g["choices"]), ", ".join(g["producers"][:2]))
            for g in body["width_groups"]
        ]
        output.table("width groups", ("id", "size", "choices", "producers"), groups)
    if body["kernels"]:
        kernels = [
            (k["id"], k["node"], " ".join("x".join(map(str, c)) for c in k["choices"]))
            for k in body["kernels"]
        ]
        output.table("elastic kernels", ("id", "node", "choices"), kernels)
    reasons: dict[str, list[str]] = {}
    for item in body["frozen"]:
        reasons.setdefault(f"{item['what']}: {item['reason']}", []).append(item["node"])
    for reason, nodes in reasons.items():
        shown = ", ".join(nodes if verbose else nodes[:3])
        more = "" if verbose or len(nodes) <= 3 else f" and {len(nodes) - 3} more"
        output.line(f"frozen  {reason} ({shown}{more})")


def check(
    model: Model,
    samples: Annotated[int, typer.Option("--samples", min=1, help="How many sub-networks to compare.")] = 5,
    runtime: Annotated[str, typer.Option("--runtime", help="onnxruntime or openvino.")] = "onnxruntime",
    shape: Shapes = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Prove that the tool understands this model: numbers from the runtime against torch.

    Example: onnxnas check resnet50.onnx --samples 10
    """
    from onnxnas.pipeline.check import check as run

    body = run(model, samples=samples, seed=seed, runtime=runtime, shapes=shapes(shape))
    if as_json:
        output.document(body)
    else:
        _show_check(str(model), body)
    if not body["ok"]:
        more = len(body["problems"]) - 1
        raise CheckFailed(f"{model}: {body['problems'][0]}" + (f" (and {more} more)" if more else ""))


def extract(
    source: Annotated[Path, typer.Argument(help="An ONNX file or a run directory.", show_default=False)],
    subnet: Annotated[
        str, typer.Option("--subnet", help="max, min, random:SEED or FILE.json.", show_default=False)
    ],
    output_: Output,
    shape: Shapes = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """One sub-network as ONNX, with the original weights or the run's trained ones.

    Example: onnxnas extract resnet50.onnx --subnet random:7 -o small.onnx
    """
    from onnxnas import graph
    from onnxnas.pipeline.extract import extract as run

    if not source.exists():
        raise RunError(f"{source}: no such file or directory; give an ONNX file or a run directory")
    _not_over(output_, source)
    found = run(source, subnet, shapes=shapes(shape))
    graph.save(found, output_)
    if as_json:
        output.document({"schema": 1, "path": str(output_), "bytes": output_.stat().st_size})
    else:
        output.line(f"{output_}: {output_.stat().st_size:,} bytes")


def quantize(
    model: Model,
    data: Annotated[
        str, typer.Option("--data", help="Samples to count ranges on and to judge by.", show_default=False)
    ],
    output_: Output,
    precision: Annotated[
        str, typer.Option("--precision", help="int8: all layers that can have it; mixed: within --max-drop.")
    ] = "int8",
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, help="Of mixed, in the unit of the quality metric.")
    ] = 1.0,
    runtime: Annotated[str, typer.Option("--runtime", help="onnxruntime or openvino.")] = "onnxruntime",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the runtime.")] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="That latency is measured with.")] = 1,
    shape: Shapes = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Precision only: the same network in numbers of 8 bits, judged and measured beside the original.

    Example: onnxnas quantize model.onnx --data data.npz --precision int8 -o small.onnx
    """
    from onnxnas.measure import Target
    from onnxnas.pipeline.quantize import KINDS
    from onnxnas.pipeline.quantize import quantize as run

    kind = next((known for known in KINDS if known == precision), None)
    if kind is None:
        raise ConfigError(f"--precision {precision}: expected {' or '.join(KINDS)}")
    _not_over(output_, model)
    target = Target(runtime, threads, batch)
    body = run(
        model, data, output_, kind=kind, max_drop=max_drop, target=target, shapes=shapes(shape), seed=seed
    )
    if as_json:
        output.document(body)
        return
    floats, rounded, speedup = body["baseline"], body["model"], body["speedup"]
    output.line(f"{output_}: {body['layers']['int8']} of {body['layers']['of']} layers in 8 bits")
    for name in [node for node in body["precision"] if node != "*"]:
        output.line(f"in floats  {name}")
    unit = body["metric"]["unit"]
    output.table(
        f"on {body['quality_split']} samples",
        ("", f"{body['metric']['name']} {unit}".strip(), "latency ms", "bytes"),
        [
            (
                name,
                f"{one['quality']:.2f}",
                f"{one['latency_ms']['value']:.3f}",
                output.thousands(one["bytes"]),
            )
            for name, one in (("original", floats), ("8 bits", rounded))
        ],
    )
    output.line(f"speed-up {speedup['value']:.2f} ({speedup['lo']:.2f} to {speedup['hi']:.2f})")
    for note in body["notes"]:
        output.line(note)


def _not_over(written: Path, source: Path) -> None:
    """Raises ConfigError when writing would destroy something."""
    if written.is_dir() or (source.is_file() and written.exists() and written.samefile(source)):
        raise ConfigError(f"-o {written}: would overwrite the input or a directory; give another file name")


def _choices(choices: list[int]) -> str:
    return " ".join(map(str, choices if len(choices) <= 8 else [*choices[:4], "...", *choices[-3:]]))


def _show_check(name: str, body: dict[str, Any]) -> None:
    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.1e}"

    rows = [
        ("identity", "1.00", "yes", figure(body["identity"]["max_rel"])),
        ("torch", "1.00", "yes", figure(body["torch"]["max_rel"])),
    ]
    for number, item in enumerate(body["subnets"]):
        ran = "yes" if item["runs"] else "no"
        rows.append((f"sub-network {number}", f"{item['macs_ratio']:.2f}", ran, figure(item["max_rel"])))
    output.table(f"{name}: {'ok' if body['ok'] else 'NOT ok'}", ("", "MACs ratio", "runs", "max_rel"), rows)
    for problem in body["problems"]:
        output.line(f"problem  {problem}")

"""The walls of the house: who may import whom, read from the syntax trees of all source files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A part may import parts with a smaller number, and itself. `onnxnas` alone is `onnxnas/__init__.py`.
LAYER = {
    "rewriters": 0,
    "onnxnas.errors": 0,
    "onnxnas.types": 0,
    "onnxnas.plugins": 1,
    "onnxnas.graph": 1,
    "onnxnas.ops": 2,
    "onnxnas.analysis": 3,
    "onnxnas.space": 4,
    "onnxnas.data": 5,
    "onnxnas.precision": 5,
    "onnxnas.supernet": 5,
    "onnxnas.measure": 5,
    "onnxnas.exporting": 6,
    "onnxnas.train": 6,
    "onnxnas.search": 7,
    "onnxnas.handoff": 7,
    "onnxnas.testing": 8,
    "onnxnas.pipeline": 9,
    "onnxnas": 10,
    "onnxnas.cli": 11,
    "onnxnas.__main__": 12,
}

# A library, and where it may be imported; conformance kits compare with whatever they need.
KITS = ("onnxnas.testing",)
OWNERS = {
    "torch": ("onnxnas.supernet", "onnxnas.train", "onnxnas.data.torch_batches", "onnxnas.exporting"),
    "onnxruntime": ("onnxnas.measure", "onnxnas.handoff.runner"),  # the runner is copied out as run.py
    "openvino": ("onnxnas.measure", "onnxnas.handoff.runner"),
    "pymoo": ("onnxnas.search",),
    "optuna": ("onnxnas.search",),
    "onnx": ("rewriters", "onnxnas.graph", "onnxnas.exporting"),
    "onnx_graphsurgeon": ("rewriters", "onnxnas.graph"),
    "onnxscript": ("onnxnas.exporting",),
    "plotly": ("onnxnas.handoff",),
    "typer": ("onnxnas.cli",),
}
LAZY = {"torch": ("onnxnas.ops",)}  # inside functions only

FORBIDDEN = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torchvision", "onnx2torch"}


@dataclass(frozen=True)
class Import:
    module: str  # the importing module
    target: str  # what it imports, absolute
    line: int
    inside: bool  # in a function: happens when that is called
    typing: bool  # under `if TYPE_CHECKING`

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(module: str, tree: ast.AST, package: bool) -> Iterator[Import]:
    def walk(node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, inside, typing)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + (1 if package else 0)]
                start = ".".join([*above, *([start] if start else [])])
            for alias in node.names:
                deeper = f"{start}.{alias.name}"
                ours = start.split(".")[0] in ("onnxnas", "rewriters")
                yield Import(
                    module, deeper if ours and exists(deeper) else start, node.lineno, inside, typing
                )
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield Import(module, node.args[0].value, node.lineno, inside, typing)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guard = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside or function, typing or guard)

    yield from walk(tree, False, False)


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def part(module: str) -> str:
    pieces = module.split(".")
    return pieces[0] if pieces[0] == "rewriters" else ".".join(pieces[:2])


FILES = sorted([*(ROOT / "onnxnas").rglob("*.py"), *(ROOT / "rewriters").rglob("*.py")])
TREES = {file: ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in FILES}
ALL = [i for f, tree in TREES.items() for i in imports(module_name(f), tree, f.name == "__init__.py")]


def test_every_part_has_its_place() -> None:
    unknown = {part(module_name(file)) for file in FILES} - LAYER.keys()
    assert not unknown, f"give these a layer in {Path(__file__).name}: {sorted(unknown)}"


def test_imports_go_one_way() -> None:
    wrong = []
    for one in ALL:
        source, target = part(one.module), part(one.target)
        if target.split(".")[0] not in ("onnxnas", "rewriters") or source == target:
            continue
        if source == "rewriters":
            wrong.append(f"{one}: rewriters know nothing of onnxnas")
        elif LAYER[target] >= LAYER[source] and LAYER[source] > 0:
            wrong.append(f"{one}: layer {LAYER[source]} may import only smaller ones, got {LAYER[target]}")
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_in_their_rooms() -> None:
    wrong = []
    for one in ALL:
        library = one.target.split(".")[0]
        if library not in OWNERS or one.typing or within(one.module, OWNERS[library] + KITS):
            continue
        if one.inside and within(one.module, LAZY.get(library, ())):
            continue
        wrong.append(f"{one}: only {', '.join(OWNERS[library])} may")
    assert not wrong, "\n".join(wrong)


def test_nothing_unsafe_is_used() -> None:
    wrong = [str(one) for one in ALL if one.target.split(".")[0] in FORBIDDEN]
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                wrong.append(f"{module_name(file)}:{node.lineno} imports *")
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("torch.load", "torch.save", "eval", "exec", "os.system"):
                wrong.append(f"{module_name(file)}:{node.lineno} calls {called}")
            for word in node.keywords:
                true = isinstance(word.value, ast.Constant) and word.value.value is True
                if word.arg in ("allow_pickle", "shell") and true:
                    wrong.append(f"{module_name(file)}:{node.lineno} {called} with {word.arg}=True")
    assert not wrong, "\n".join(wrong)


def test_the_walker_sees_what_it_should() -> None:
    code = (
        "from typing import TYPE_CHECKING\n"
        "import torch.nn as nn\n"
        "from ..errors import ModelError\n"
        "from . import conv\n"
        "if TYPE_CHECKING:\n    import optuna\n"
        "def f():\n    import importlib\n    importlib.import_module('pickle')\n"
    )
    seen = {(i.target, i.inside, i.typing) for i in imports("onnxnas.graph.load", ast.parse(code), False)}
    assert {("torch.nn", False, False), ("onnxnas.errors", False, False)} <= seen
    assert ("onnxnas.graph", False, False) in seen
    assert ("optuna", False, True) in seen
    assert ("pickle", True, False) in seen
    package = {i.target for i in imports("onnxnas.graph", ast.parse("from ..types import Node"), True)}
    assert package == {"onnxnas.types"}


LIGHT = [name for name in LAYER if (LAYER[name] <= 4 or name == "onnxnas.cli") and exists(name)]


@pytest.mark.parametrize("name", LIGHT)
def test_starts_without_the_heavy_libraries(name: str) -> None:
    """What `inspect` needs starts in a moment: no torch, no runtime, no search library."""
    heavy = ("torch", "onnxruntime", "openvino", "pymoo", "optuna", "plotly", "sklearn")
    code = f"import sys, {name}; print(' '.join(m for m in {heavy!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"importing {name} imports {done.stdout.strip()}"

"""Exporting: equal to torch in an independent evaluator, BatchNorm kept or folded, the batch free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file

from onnxnas.errors import CheckFailed, ConfigError
from onnxnas.exporting import InputSpec, build_module, export, parse_input

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.bn(self.conv(x))).mean((2, 3))))

class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(int(x.shape[0]), 3, 4)

class Branching(Net):
    def forward(self, x):
        return super().forward(x) * (2 if x.shape[0] > 1 else 3)

class Guarded(Net):
    def forward(self, x):
        return super().forward(x) if x.abs().max() < 1000 else x

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, ids, mask):
        y = self.table(ids) * mask[..., None]
        return y, y.sum(1)

def net():
    return Net()

def broken():
    raise ValueError("no such width")

def number():
    return 3
"""
X = InputSpec("x", (1, 3, 6, 6))


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(SOURCE)
    return str(tmp_path / "nets.py")


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_equals_torch(source: str, tmp_path: Path, exporter: str) -> None:
    path = tmp_path / "new" / "m.onnx"
    made = export(f"{source}:net", [X], path, exporter=exporter)  # type: ignore[arg-type]
    assert made.max_rel < 1e-5
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert ("BatchNormalization" in kinds) == (exporter == "torchscript")
    assert "Dropout" not in kinds
    assert [i.name for i in model.graph.input] == ["x"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    x = np.random.default_rng(0).normal(size=(5, 3, 6, 6)).astype(np.float32)
    (got,) = ReferenceEvaluator(model).run(None, {"x": x})
    with torch.no_grad():
        expected = build_module(f"{source}:net")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_batch_norm_keeps_its_statistics_under_their_names(source: str, tmp_path: Path) -> None:
    export(f"{source}:Net", [X], tmp_path / "m.onnx")
    values = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    module = build_module(f"{source}:net")
    for name in ("conv.weight", "bn.running_mean", "bn.running_var", "head.bias"):
        assert np.array_equal(values[name], module.state_dict()[name].numpy())


def test_only_parameters_that_share_memory_are_shared(source: str, tmp_path: Path) -> None:
    (tmp_path / "tied.py").write_text(
        "from torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))\n"
        "        self.b.weight = nn.Parameter(self.a.weight.detach().clone())\n"
        "        self.c.weight = self.a.weight\n"
        "    def forward(self, x):\n"
        "        return self.c(self.b(self.a(x)))\n"
    )
    export(f"{tmp_path}/tied.py:Tied", [X], tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert sorted(t.name for t in graph.initializer) == ["a.weight", "b.weight"]


def test_several_inputs_and_outputs(source: str, tmp_path: Path) -> None:
    inputs = [parse_input("ids=1,3:int64"), parse_input("mask=1,3")]
    made = export(f"{source}:Words", inputs, tmp_path / "m.onnx")
    assert made.batches == (1, 3)
    model = onnx.load(tmp_path / "m.onnx")
    assert [i.name for i in model.graph.input] == ["ids", "mask"]
    assert len(model.graph.output) == 2


def test_weights(source: str, tmp_path: Path) -> None:
    module = build_module(f"{source}:net")
    with torch.no_grad():
        module.head.bias.fill_(3.25)
    state = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "w.safetensors")
    loaded = build_module(f"{source}:net", tmp_path / "w.safetensors")
    assert torch.equal(loaded.state_dict()["head.bias"], torch.full((5,), 3.25))
    assert not loaded.training


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head.bias": None}, "no tensor 'head.bias'"),
        ({"head.bias": None, "head.bais": torch.zeros(5)}, "nearest name: 'head.bais'"),
        ({"other": torch.zeros(1)}, "has no 'other'"),
        ({"head.bias": torch.zeros(6)}, r"'head.bias' has shape \[6\], the module's \[5\]"),
    ],
)
def test_weights_that_do_not_fit(
    source: str, tmp_path: Path, change: dict[str, torch.Tensor | None], says: str
) -> None:
    state = {**build_module(f"{source}:net").state_dict(), **change}
    save_file({k: v for k, v in state.items() if v is not None}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=says):
        build_module(f"{source}:net", tmp_path / "w.safetensors")


def test_files_that_are_no_weights(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        build_module(f"{source}:net", tmp_path / "absent.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x02pickle")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        build_module(f"{source}:net", tmp_path / "w.safetensors")


def test_functions_that_build_nothing(source: str) -> None:
    with pytest.raises(ConfigError, match="no such width"):
        build_module(f"{source}:broken")
    with pytest.raises(ConfigError, match="got int"):
        build_module(f"{source}:number")
    with pytest.raises(ConfigError, match="has no 'absent'"):
        build_module(f"{source}:absent")


def test_wrong_input_shape(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"module fails on inputs .*\[2, 4, 6, 6\]"):
        export(f"{source}:net", [InputSpec("x", (1, 4, 6, 6))], tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_fixed_batch_is_found_and_nothing_written(source: str, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="ONNX Runtime fails at batch 1"):
        export(f"{source}:FixedBatch", [InputSpec("x", (1, 12))], tmp_path / "m.onnx")
    assert list(tmp_path.glob("*.onnx*")) == []


def test_a_branch_fixed_by_tracing_is_found(source: str, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"differs from torch by 0\.33"):
        export(f"{source}:Branching", [X], tmp_path / "m.onnx")
    assert list(tmp_path.glob("*.onnx*")) == []


def test_what_tracing_fixed_is_noted(source: str, tmp_path: Path) -> None:
    made = export(f"{source}:Guarded", [X], tmp_path / "m.onnx")
    assert any("Python boolean" in note for note in made.notes)


def test_quiet(source: str, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from onnxnas.exporting import *; "
        f"export({source + ':net'!r}, [parse_input('x=1,3,6,6')], Path({str(tmp_path / 'm.onnx')!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True
    )
    assert "onnx" not in done.stdout + done.stderr
    assert (tmp_path / "m.onnx").exists()


def test_parse_input() -> None:
    assert parse_input("x=1,3,32,32") == InputSpec("x", (1, 3, 32, 32), "float32")
    assert parse_input("ids=1,128:int64") == InputSpec("ids", (1, 128), "int64")
    for bad in ("x", "x=", "=1,3", "x=1,a", "x=0,3", "x=1,3:float99"):
        with pytest.raises(ConfigError, match="input"):
            parse_input(bad)

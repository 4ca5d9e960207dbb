"""Compiling plans: liveness, bypasses, smaller kernels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from onnxnas.errors import ModelError
from onnxnas.supernet.program import Compiler, Program, View, cropped_pads, take
from onnxnas.types import Node
from rewriters.edits import Bypass, CropKernel, FoldBatchNorm, Keep, ReplaceConstant, SetAttribute

CPU = torch.device("cpu")


def compiler(nodes: Sequence[Node], values: Mapping[str, np.ndarray], outputs: Sequence[str]) -> Compiler:
    floats = frozenset(name for name, v in values.items() if v.dtype.kind == "f")

    def make(node: Node, constants: Mapping[int, np.ndarray]):
        if node.op_type == "Scale":
            factor = node.attributes.get("by", 1.0) * float(constants[1].sum() if 1 in constants else 1)
            return lambda x: x[0] * factor
        if node.op_type == "Split":
            return lambda x: (x[0] + 1, x[0] + 2)
        return lambda x: sum(v for v in x if v is not None)

    return Compiler(nodes, values, floats, ("x",), outputs, make, lambda node, size: None)


def run(program: Program, x: Tensor, values: Mapping[str, np.ndarray]) -> tuple[list[Tensor], int]:
    """A slow reference executor: outputs, and the most activations alive at once."""
    slots: list[Tensor | None] = [None] * program.slots
    slots[program.inputs[0][1]] = x
    for name, index, view in program.reads:
        value = torch.from_numpy(values[name])
        slots[index] = value if view is None else view.of(value)
    for index, constant in program.constants:
        slots[index] = constant
    fixed = {index for _, index, _ in program.reads} | {index for index, _ in program.constants}
    most = 0
    for step in program.steps:
        result = step.function([slots[i] for i in step.inputs])
        for index, part in zip(
            step.outputs, result if isinstance(result, tuple) else (result,), strict=False
        ):
            if index >= 0:
                slots[index] = part
        most = max(most, sum(v is not None for i, v in enumerate(slots) if i not in fixed))
        for index in step.dead:
            slots[index] = None
    return [slots[i] for i in program.outputs], most  # type: ignore[misc]


def chain(n: int) -> list[Node]:
    return [
        Node(f"n{i}", "Sum", "", 1, ("x" if i == 0 else f"t{i - 1}", f"w{i}"), (f"t{i}",), {})
        for i in range(n)
    ]


def test_values_are_cleared_at_their_last_use() -> None:
    values = {f"w{i}": np.full(2, 10.0**i, np.float32) for i in range(6)}
    program = compiler(chain(6), values, ["t5"]).compile([], CPU)
    (y,), most = run(program, torch.zeros(2), values)
    assert y.tolist() == [111111.0, 111111.0]
    assert most == 2


def test_an_output_that_is_also_read_stays() -> None:
    values = {f"w{i}": np.ones(1, np.float32) for i in range(3)}
    outputs, _ = run(compiler(chain(3), values, ["t0", "t2"]).compile([], CPU), torch.zeros(1), values)
    assert [y.item() for y in outputs] == [1.0, 3.0]


@pytest.mark.parametrize("skipped", list(itertools.product((False, True), repeat=3)))
def test_neighbouring_bypasses(skipped: tuple[bool, ...]) -> None:
    values = {f"w{i}": np.full(1, 10.0**i, np.float32) for i in range(3)}
    ends = ["x", "t0", "t1", "t2"]
    plan = [Bypass(ends[i], ends[i + 1]) for i in range(3) if skipped[i]]
    program = compiler(chain(3), values, ["t2"]).compile(plan, CPU)
    (y,), _ = run(program, torch.zeros(1), values)
    assert y.item() == sum(10.0**i for i in range(3) if not skipped[i])
    assert program.live == {f"n{i}" for i in range(3) if not skipped[i]}


def test_a_cycle_of_bypasses_is_refused() -> None:
    values = {f"w{i}": np.ones(1, np.float32) for i in range(3)}
    with pytest.raises(ModelError, match="cycle"):
        compiler(chain(3), values, ["t2"]).compile([Bypass("t1", "t2"), Bypass("t2", "t1")], CPU)


def test_changed_attributes_and_constants_do_not_leak_into_other_plans() -> None:
    nodes = [Node("s", "Scale", "", 1, ("x", "c"), ("y",), {"by": 2.0})]
    values = {"c": np.array([1, 2, 3])}
    made = compiler(nodes, values, ["y"])
    x = torch.ones(1)

    def result(*plan: object) -> float:
        return run(made.compile(plan, CPU), x, values)[0][0].item()  # type: ignore[arg-type]

    assert result() == 12.0
    assert result(SetAttribute("s", "by", 5.0)) == 30.0
    assert result(ReplaceConstant("s", 1, np.array([4]))) == 8.0
    assert result(Keep("c", 0, np.array([0, 2]))) == 8.0
    assert result() == 12.0


def test_unread_outputs_and_absent_inputs() -> None:
    nodes = [
        Node("p", "Split", "", 1, ("x",), ("a", "b"), {}),
        Node("q", "Sum", "", 1, ("b", "", "w"), ("y",), {}),
    ]
    values = {"w": np.zeros(1, np.float32)}
    program = compiler(nodes, values, ["y"]).compile([], CPU)
    assert program.steps[0].outputs[0] == -1
    (y,), _ = run(program, torch.zeros(1), values)
    assert y.item() == 2.0


def test_edits_that_training_does_not_know_are_refused() -> None:
    with pytest.raises(ModelError, match="FoldBatchNorm"):
        compiler(chain(1), {"w0": np.ones(1, np.float32)}, ["t0"]).compile([FoldBatchNorm("n0")], CPU)


def test_take_is_as_cheap_as_it_can_be() -> None:
    assert take(np.arange(4), 0, 4, CPU) is None
    run_on = take(np.arange(2, 5), 1, 8, CPU)
    assert run_on is not None
    assert (run_on.start, run_on.length, run_on.indices) == (2, 3, None)
    gather = take(np.array([3, 1]), 0, 4, CPU)
    assert gather is not None
    assert gather.of(torch.arange(4)).tolist() == [3, 1]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("old", "new"), [(5, 3), (7, 3), (3, 1)])
def test_a_smaller_kernel_is_the_large_one_with_a_zero_rim(old: int, new: int, dilation: int) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 3, 9, 9), torch.randn(4, 3, old, old)
    pad = dilation * (old - 1) // 2
    attributes = {"kernel_shape": (old, old), "pads": (pad,) * 4, "dilations": (dilation,) * 2}
    node = Node("c", "Conv", "", 11, ("x", "w"), ("y",), attributes)
    changed = cropped_pads(node, (old, old), (new, new))
    assert changed.attributes["kernel_shape"] == (new, new)
    small = View(crop=(new, new)).of(w)
    rim = (old - new) // 2
    wanted = F.conv2d(x, F.pad(small, (rim,) * 4), padding=pad, dilation=dilation)
    assert len(set(changed.attributes["pads"])) == 1
    found = F.conv2d(x, small, padding=changed.attributes["pads"][0], dilation=dilation)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_the_kernel_matrix_multiplies_the_flat_kernel() -> None:
    torch.manual_seed(0)
    w, m = torch.randn(4, 3, 5, 5), torch.randn(9, 9)
    found = View(crop=(3, 3)).of(w, m)
    wanted = torch.einsum("oij,jk->oik", w[:, :, 1:4, 1:4].reshape(4, 3, 9), m).reshape(4, 3, 3, 3)
    assert torch.allclose(found, wanted, atol=1e-5)
    keep_all = View(crop=(3, 3)).of(w, torch.eye(9))
    assert torch.equal(keep_all, w[:, :, 1:4, 1:4])


def test_crop_is_compiled() -> None:
    nodes = [Node("c", "Conv", "", 11, ("x", "w"), ("y",), {"kernel_shape": (5, 5), "pads": (2, 2, 2, 2)})]
    made = compiler(nodes, {"w": np.zeros((2, 2, 5, 5), np.float32)}, ["y"])
    program = made.compile([CropKernel("c", (3, 3)), Keep("w", 0, np.arange(1))], CPU)
    assert program.views["w"].of(torch.zeros(2, 2, 5, 5)).shape == (1, 2, 3, 3)

"""Conformance kit for operators: what an entry of the table claims, held against ONNX Runtime and zeros.

    from onnxnas.testing.operators import OperatorCase, check_case

    check_case(OperatorCase("MyOp", make_model))

`make_model` gives a small network in which a convolution or a linear layer makes channels, the operator
passes them, and another layer reads them. For the original and several sub-networks the kit checks that
torch gives what ONNX Runtime gives on the rewritten file, that this is what the full network gives with
zeros in place of what went (`testing.reference`), and that the claimed cost is the counted one.
`groups` is the least number of width groups there must be: 0 says that the operator passes no channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnas import space as spaces
from onnxnas.analysis import analyse
from onnxnas.graph import example_inputs, load, rewrite
from onnxnas.supernet import SuperNetwork
from onnxnas.testing.reference import masked_model
from onnxnas.types import Subnet

Arrays = list[NDArray[Any]]
ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")


@dataclass(frozen=True)
class OperatorCase:
    """A network around one operator. `zeros` False: the masked network is no oracle for it."""

    name: str
    model: Callable[[], onnx.ModelProto]
    groups: int = 1
    zeros: bool = True


def run_onnx(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> Arrays:
    """The outputs of ONNX Runtime, one thread, no optimisation of the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def run_torch(network: SuperNetwork, feeds: dict[str, NDArray[Any]]) -> Arrays:
    """The outputs of the active sub-network in torch."""
    import torch

    with torch.no_grad():
        outputs = network({name: torch.from_numpy(value) for name, value in feeds.items()})
    return [o.numpy() for o in outputs]


def worst(got: Arrays, expected: Arrays) -> float:
    """Largest |a - b| / max |b| over the outputs; infinite when shapes differ or something is not finite."""
    if [x.shape for x in got] != [x.shape for x in expected]:
        return float("inf")
    errors = [
        float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-9))
        for a, b in zip(got, expected, strict=True)
    ]
    return max(errors) if np.isfinite(errors).all() else float("inf")


def check_case(case: OperatorCase, *, seed: int = 0, samples: int = 2) -> None:
    """Raises AssertionError, naming the case and the sub-network, when a claim does not hold."""
    model = case.model()
    space = spaces.build(analyse(load(model)))
    assert len(space.groups) >= case.groups, f"{case.name}: {len(space.groups)} width groups; {space.frozen}"
    feeds = example_inputs(space.graph, seed=seed, batch=2)
    network = SuperNetwork(space)
    network.eval()
    rng = np.random.default_rng(seed)
    subnets = [Subnet()]
    if space.dimensions:
        subnets += [space.minimal(), *(space.random(rng) for _ in range(samples))]
    for subnet in subnets:
        where = f"{case.name}, sub-network {subnet.key()}"
        small = rewrite(space.graph, space.plan(subnet))
        onnx.checker.check_model(small)
        outputs = run_onnx(small, feeds)
        network.activate(subnet)
        error = worst(run_torch(network, feeds), outputs)
        assert error < 1e-4, f"{where}: torch differs from ONNX Runtime by {error:.1e}"
        expected = model if subnet == Subnet() else masked_model(space, subnet)
        if case.zeros or subnet == Subnet():
            error = worst(outputs, run_onnx(expected, feeds))
            assert error < 1e-4, f"{where}: the rewritten file differs from the reference by {error:.1e}"
        assert_cost(space, subnet, small, feeds, where)


def assert_cost(
    space: spaces.SearchSpace,
    subnet: Subnet,
    small: onnx.ModelProto,
    feeds: dict[str, NDArray[Any]],
    where: str,
) -> None:
    """The claimed cost of one sample against the one counted in the rewritten file."""
    cost = space.cost(subnet)
    macs, params = counted(small, {k: v[:1] for k, v in feeds.items()})
    assert (cost.macs, cost.params) == (macs, params), f"{where}: claimed {cost}, counted {macs}, {params}"


def counted(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> tuple[int, int]:
    """(multiply-accumulates, weights) from the shapes that ONNX Runtime really computes for `feeds`."""
    names = sorted({o for n in model.graph.node for o in n.output if o})
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(o) for o in names)
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    shapes: dict[str, tuple[int, ...]] = {**weights, **{k: v.shape for k, v in feeds.items()}}
    shapes |= {o: v.shape for o, v in zip(names, run_onnx(probe, feeds), strict=True)}
    macs, used = 0, set()
    for node in model.graph.node:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            steps, samples = shapes[node.input[0]][:2]
            used |= {*node.input[1:3]}
            macs += steps * samples * sum(int(np.prod(weights[w])) for w in node.input[1:3])
        if node.op_type == "Einsum":
            used |= {i for i in node.input if i in weights}
            macs += _multiplied(node, [shapes[i] for i in node.input])
        if node.op_type in ATTENTION:
            macs += _attended(node, shapes)
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        used |= {i for i in node.input[:2] if i in weights}
        x, y = shapes[node.input[0]], shapes[node.output[0]]
        if node.op_type == "Conv":
            macs += int(np.prod(y)) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "ConvTranspose":
            macs += int(np.prod(x)) * int(np.prod(shapes[node.input[1]][1:]))
        else:
            macs += int(np.prod(y)) * x[-1]
    return macs, sum(int(np.prod(weights[w])) for w in used)


def _attended(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The products of queries with keys and of weights with values, by heads: b * n * s * t * (h + h')."""
    settings = {a.name: a.i for a in node.attribute}
    heads = settings.get("q_num_heads") or settings.get("num_heads") or shapes[node.input[0]][1]
    q, k, y = (shapes[name] for name in (node.input[0], node.input[1] or node.input[0], node.output[0]))
    if not node.input[1]:
        q = y  # what is packed is read as queries, keys and values of the size of the result
    size, made = (s[3] if len(s) == 4 else s[2] // heads for s in (q, y))
    steps, keys = (s[-2] if len(s) == 4 else s[1] for s in (q, k))
    place = {"Attention": 4, "GroupQueryAttention": 3, "MultiHeadAttention": 6}[node.op_type]
    past = node.input[place] if len(node.input) > place else ""
    keys += shapes[past][2] if past else 0
    return q[0] * heads * steps * keys * (size + made)


def _multiplied(node: onnx.NodeProto, shapes: list[tuple[int, ...]]) -> int:
    """The products of an Einsum of two, without "...", as numpy counts the floating-point operations."""
    equation = onnx.helper.get_attribute_value(node.attribute[0]).decode()
    report = np.einsum_path(equation, *(np.zeros(s, np.int8) for s in shapes), optimize=False)[1]
    count = next(line for line in str(report).splitlines() if "Naive FLOP count" in line)
    return round(float(count.split(":")[1]) / 2)

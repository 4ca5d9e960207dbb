"""The canonical form of a model: the same network comes out the same, whichever exporter wrote it.

    functions inlined -> nodes in order -> one folding walk (`fold`) -> dead nodes out
    -> initializers unshared (`share`) -> names -> value_info

What is inside If, Loop and Scan stays as it is, and so do the names of the outer tensors it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from rewriters.clean import alive, in_order
from rewriters.constants import NEVER
from rewriters.fold import Folder
from rewriters.inference import Types
from rewriters.share import name_nodes, unshare
from rewriters.skeleton import captures, strip

Shapes = Mapping[str, tuple[int | str, ...]]


@dataclass(frozen=True, eq=False)
class Canonical:
    """The canonical model, and what was done to get there."""

    model: onnx.ModelProto
    notes: tuple[str, ...]


def canonicalise(model: onnx.ModelProto, shapes: Shapes | None = None) -> Canonical:
    """Bring `model`, which is not modified, into canonical form.

    Args:
        model: a valid model with its weights at hand (external ones are carried along unread).
        shapes: by graph input, the shape to declare for it instead of the file's; a str is a symbol.

    Constant nodes are initializers; Identity, idle Dropout and other nodes that change nothing are gone;
    what is constant is folded (weights that several nodes share excepted), shapes with one unknown too;
    merged initializers are parted; inputs are only real inputs; nodes have unique names; value_info holds
    the inferred shapes. The outputs are those of `model`, up to float rounding of what was folded.

    Raises:
        ValueError: `shapes` names something that is not an input, or a rank that differs; the nodes form
            a circle.
    """
    skeleton = strip(model)
    if skeleton.functions:
        skeleton = onnx.inliner.inline_local_functions(skeleton)
    graph = skeleton.graph
    stored = {t.name: t for t in model.graph.initializer}
    inputs = [i for i in graph.input if i.name not in stored]
    _declare(inputs, shapes or {})

    nodes = _ordered(list(graph.node))
    read_inside = [captures(node) for node in nodes]
    pinned = frozenset().union(*read_inside)
    taken = {o for node in nodes for o in node.output} | set(stored) | {i.name for i in inputs}
    taken |= {name for inside in read_inside for name in inside} | {n.name for n in nodes}
    folder = Folder(
        types=_types(skeleton, inputs),
        constants=dict(stored),
        declared=_declared(model, skeleton),
        outputs=frozenset(o.name for o in graph.output),
        pinned=pinned,
        uses=_uses(nodes, stored),
        taken=taken,
    )
    for node in nodes:
        folder.visit(node)

    emitted = _rename_outputs(folder, frozenset(i.name for i in inputs) | frozenset(stored), pinned)
    emitted = _alive(emitted, [o.name for o in graph.output])
    pinned = frozenset().union(*(captures(node) for node in emitted))
    copies = unshare(emitted, folder.constants, pinned, taken)
    name_nodes(emitted)
    out = _assemble(skeleton, inputs, emitted, folder, copies, bool(shapes))
    notes = [f"{count} {what}" for what, count in sorted(folder.counts.items())]
    if copies:
        notes.append(f"{len(copies)} copies made of initializers that were merged")
    return Canonical(out, tuple(notes))


def _declare(inputs: Iterable[onnx.ValueInfoProto], shapes: Shapes) -> None:
    """Write `shapes` into the declarations of inputs."""
    by_name = {i.name: i for i in inputs}
    for name, shape in shapes.items():
        if name not in by_name or not by_name[name].type.HasField("tensor_type"):
            raise ValueError(f"shape for '{name}': the model's inputs are {', '.join(by_name)}")
        tensor = by_name[name].type.tensor_type
        if tensor.HasField("shape") and len(tensor.shape.dim) != len(shape):
            raise ValueError(
                f"shape for '{name}': got {tuple(shape)}, expected {len(tensor.shape.dim)} dimensions"
            )
        tensor.ClearField("shape")
        tensor.CopyFrom(onnx.helper.make_tensor_type_proto(tensor.elem_type, list(shape)).tensor_type)


def _ordered(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes such that every tensor is made before it is read. Raises ValueError."""
    order = in_order(_reads(nodes))
    if len(order) < len(nodes):
        stuck = nodes[min(set(range(len(nodes))) - set(order))]
        raise ValueError(f"the nodes form a circle through {stuck.op_type} '{stuck.name}'")
    return [nodes[i] for i in order]


def _reads(nodes: list[onnx.NodeProto]) -> list[list[int]]:
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    return [sorted({makers[n] for n in (*node.input, *captures(node)) if n in makers}) for node in nodes]


def _alive(nodes: list[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needed = alive(_reads(nodes), [makers[name] for name in outputs if name in makers])
    return [node for i, node in enumerate(nodes) if i in needed]


def _types(skeleton: onnx.ModelProto, inputs: Iterable[onnx.ValueInfoProto]) -> Types:
    types = Types(skeleton.opset_import, skeleton.ir_version)
    for declared in inputs:
        known = onnx.TypeProto()
        known.CopyFrom(declared.type)
        for dim in known.tensor_type.shape.dim if known.HasField("tensor_type") else ():
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.ClearField("dim_value")  # some exporters write 0 or -1 for "any"
        types.set(declared.name, known)
    for tensor in skeleton.graph.initializer:
        types.set_constant(tensor.name, tensor.data_type, tensor.dims)
    return types


def _declared(model: onnx.ModelProto, skeleton: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """What the file says of tensors, for those that inference knows nothing of."""
    infos = [*model.graph.value_info, *skeleton.graph.output]
    return {info.name: info.type for info in infos if info.type.WhichOneof("value")}


def _uses(nodes: Iterable[onnx.NodeProto], stored: Mapping[str, TensorProto]) -> dict[str, int]:
    """How many tensors made of an initializer, itself among them, are read by nodes that cannot be folded.

    One of them is what folding would leave of a weight that is standardised at run time: it takes part in
    its mean and its variance, and only the result is convolved with.
    """
    sources: dict[str, frozenset[str]] = {name: frozenset([name]) for name in stored}
    alias: dict[str, str] = {}
    uses: dict[str, set[str]] = {}
    for node in nodes:
        constant = all(n in sources or not n for n in node.input) and node.op_type not in NEVER
        if constant and (node.input or node.op_type == "Constant"):
            lengths = node.op_type in ("Shape", "Size")
            merged = frozenset[str]().union(*(sources[n] for n in node.input if n and not lengths))
            sources.update((output, merged) for output in node.output if output)
            if node.op_type == "Identity":
                alias[node.output[0]] = alias.get(node.input[0], node.input[0])
            continue
        for name in node.input:
            for source in sources.get(name, ()):
                uses.setdefault(source, set()).add(alias.get(name, name))
    return {source: len(tensors) for source, tensors in uses.items()}


def _rename_outputs(folder: Folder, fixed: frozenset[str], pinned: frozenset[str]) -> list[onnx.NodeProto]:
    """Let the makers of what an Identity carries to an output write that output themselves."""
    outputs = folder.outputs
    made = {name for node in folder.nodes for name in node.output}
    names: dict[str, str] = {}
    kept = []
    for node in folder.nodes:
        source = node.input[0] if node.op_type == "Identity" and not node.domain else ""
        free = source in made and source not in fixed | pinned | outputs | names.keys()
        if free and node.output[0] in outputs and node.output[0] not in pinned:
            names[source] = node.output[0]
            folder.types.rename(source, node.output[0])
        else:
            kept.append(node)
    for node in kept if names else ():
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name in names:
                    field[index] = names[name]
    return kept


def _assemble(
    skeleton: onnx.ModelProto,
    inputs: Iterable[onnx.ValueInfoProto],
    nodes: list[onnx.NodeProto],
    folder: Folder,
    copies: Mapping[str, str],
    reshaped: bool,
) -> onnx.ModelProto:
    """The model of `nodes` with the constants they read and the types that are known."""
    out = onnx.ModelProto()
    out.CopyFrom(skeleton)
    out.ir_version = max(out.ir_version, 4)  # before, every initializer had to be an input
    graph = out.graph
    for field in ("node", "input", "initializer", "quantization_annotation"):
        graph.ClearField(field)
    del out.functions[:]
    graph.input.extend(inputs)
    graph.node.extend(nodes)
    read = [name for node in nodes for name in (*node.input, *sorted(captures(node)))]
    read += [o.name for o in graph.output]
    for name in dict.fromkeys(read):
        value = folder.constants.get(copies.get(name, name))
        if value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value if isinstance(value, TensorProto) else _tensor(value))
            tensor.name = name
    outputs = {o.name for o in graph.output}
    for node in nodes:
        for name in node.output:
            known = folder.types.get(name)
            if known is not None and name not in outputs:
                graph.value_info.append(onnx.ValueInfoProto(name=name, type=known))
    for output in graph.output:
        known = folder.types.get(output.name)
        if known is not None and (reshaped or not output.type.WhichOneof("value")):
            output.type.CopyFrom(known)
    return out


def _tensor(value: NDArray[Any]) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, order="C"))

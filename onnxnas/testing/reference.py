"""An oracle for sub-networks that slices nothing: the full network with what is taken away set to zero.

After every node, positions that the sub-network does not have are set to zero; a skipped block's
readers read its entry; the rim of a shrunken kernel is zero. Where an operator reduces over elastic
positions (LayerNormalization, reductions) or looks at neighbours (LRN) zeros would count, so the kept
positions are gathered in front of it and put back behind it. Softmax over an elastic axis is not described.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from onnxnas.space import SearchSpace
from onnxnas.types import Node, Subnet

NORMALISED = ("LayerNormalization",)
RECURRENT = ("LSTM", "GRU", "RNN")


def masked_model(space: SearchSpace, subnet: Subnet) -> ModelProto:
    """The whole network, computing what the sub-network computes."""
    model = ModelProto()
    model.CopyFrom(space.graph.model)
    _Masker(space, subnet, model).run()
    onnx.checker.check_model(model)
    return model


class _Masker:
    def __init__(self, space: SearchSpace, subnet: Subnet, model: ModelProto) -> None:
        self.graph, self.subnet, self.model = space.graph, subnet, model
        self.view = space.planner.view(subnet)
        self.rename = {b.exit: b.entry for b in space.blocks if b.id in subnet.skip}
        self.kernels = {k.node: subnet.kernel[k.id] for k in space.kernels if k.id in subnet.kernel}
        self.nodes: list[onnx.NodeProto] = []
        self.count = 0

    def constant(self, value: NDArray[np.generic]) -> str:
        self.count += 1
        name = f"masked_constant_{self.count}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        name = f"masked_{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def run(self) -> None:
        self._crop()
        for proto in self.model.graph.node:
            node = self.graph.node(proto.name)
            new = onnx.NodeProto()
            new.CopyFrom(proto)
            for i, name in enumerate(new.input):
                while name in self.rename:
                    name = self.rename[name]
                new.input[i] = name
            expand = self._compact(node, new)
            self._silence(node, new)
            outputs = list(new.output)
            for i, name in enumerate(outputs):
                masks = self._masks(name)
                if masks or expand:
                    new.output[i] = name + "__unmasked"
            self.nodes.append(new)
            for name in outputs:
                self._cover(name, self._masks(name), expand)
        del self.model.graph.node[:]
        del self.model.graph.value_info[:]
        self.model.graph.node.extend(self.nodes)

    def _crop(self) -> None:
        """Zero the rim of shrunken kernels."""
        sizes = {self.graph.node(n).inputs[1]: size for n, size in self.kernels.items()}
        for tensor in self.model.graph.initializer:
            if tensor.name in sizes:
                value = numpy_helper.to_array(tensor).copy()
                full: tuple[int, ...] = value.shape[2:]
                inner = np.zeros(full, bool)
                kept = zip(full, sizes[tensor.name], strict=True)
                inner[tuple(slice((n - k) // 2, (n + k) // 2) for n, k in kept)] = True
                tensor.CopyFrom(numpy_helper.from_array(value * inner, tensor.name))

    def _silence(self, node: Node, new: onnx.NodeProto) -> None:
        """A hidden unit whose weights, biases and first state are zero stays zero."""
        if node.op_type not in RECURRENT:
            return
        for i, name in enumerate(node.inputs):
            value = self.graph.initializers.get(name)
            if value is None or value.dtype.kind != "f":
                continue
            for axis in range(value.ndim):
                mask = self.view.mask(name, axis)
                if mask is not None:
                    value = value * mask.reshape([-1 if a == axis else 1 for a in range(value.ndim)])
            new.input[i] = self.constant(value.astype(self.graph.initializers[name].dtype))

    def _masks(self, tensor: str) -> Mapping[int, NDArray[np.bool_]]:
        info = self.graph.tensors[tensor]
        if info.shape is None or info.dtype is None or info.dtype.kind != "f":
            return {}
        found = ((axis, self.view.mask(tensor, axis)) for axis in range(len(info.shape)))
        return {axis: mask for axis, mask in found if mask is not None}

    def _cover(
        self, name: str, masks: Mapping[int, NDArray[np.bool_]], expand: dict[int, NDArray[np.bool_]]
    ) -> None:
        """Make `name` from `name__unmasked`."""
        if not masks and not expand:
            return
        current = name + "__unmasked"
        for axis, mask in expand.items():
            place = np.where(mask, np.cumsum(mask) - 1, 0)
            current = self.add("Gather", current, self.constant(place.astype(np.int64)), axis=axis)
        rank = len(self.graph.tensors[name].shape or ())
        for axis, mask in masks.items():
            shape = [mask.size if a == axis else 1 for a in range(rank)]
            zero = self.constant(np.zeros((), self.graph.tensors[name].dtype))
            current = self.add("Where", self.constant(mask.reshape(shape)), current, zero)
        self.nodes.append(helper.make_node("Identity", [current], [name], name=name + "__masked"))

    def _compact(self, node: Node, new: onnx.NodeProto) -> dict[int, NDArray[np.bool_]]:
        """Gather the kept positions in front of an operator that reduces over them; what to put back after."""
        masks = self._masks(node.inputs[0]) if node.inputs and node.inputs[0] in self.graph.tensors else {}
        rank = len(self.graph.tensors[node.inputs[0]].shape or ()) if masks else 0
        if node.op_type == "ReduceMean":
            back: dict[int, NDArray[np.bool_]] = {}
            axes = node.attributes.get("axes")
            if axes is None and len(node.inputs) > 1:
                axes = self.graph.initializers[node.inputs[1]].tolist()
            over = {int(a) % rank for a in axes} if axes is not None and rank else set(range(rank))
            masks = {a: m for a, m in masks.items() if a in over}
        elif node.op_type == "LRN":
            masks = {a: m for a, m in masks.items() if a == 1}
            back = dict(masks)
        elif node.op_type in NORMALISED:
            first = int(node.attributes.get("axis", -1)) % rank if rank else 0
            masks = {a: m for a, m in masks.items() if a >= first}
            back = dict(masks)
            for i in range(1, len(new.input)):
                shape = self.graph.tensors[node.inputs[i]].shape or ()
                for axis, mask in masks.items():
                    index = self.constant(np.flatnonzero(mask))
                    new.input[i] = self.add("Gather", new.input[i], index, axis=axis - rank + len(shape))
        else:
            return {}
        for axis, mask in masks.items():
            new.input[0] = self.add("Gather", new.input[0], self.constant(np.flatnonzero(mask)), axis=axis)
        return back

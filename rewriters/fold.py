"""One walk through a graph that folds what is constant and follows shapes with symbols.

Each node is visited once, in topological order, and ends up as one of: a constant (all of its outputs are
known numbers), an alias (it changes nothing), or an emitted node whose inputs are then as constant as they
can be. A node whose output is partly known (a shape with an unknown batch) is emitted too; if all of its
readers could do without it, it is dead and is swept up afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from rewriters import targets
from rewriters.constants import NEVER, SMALL_BYTES, constant_node_value, may_fold, reference
from rewriters.evaluate import FUNCTIONS, evaluate
from rewriters.inference import Types, vague
from rewriters.noop import leave_out_empty, passes_through
from rewriters.refine import refine
from rewriters.share import unique
from rewriters.sizes import Sizes
from rewriters.symbols import Unknown, array, is_known, product
from rewriters.unfuse import expand
from rewriters.zeros import Zeros

Array = NDArray[Any]
_SMALL = 4096  # elements up to which an initializer is looked into
_SCALES = 32  # elements of a float initializer that may say something about shapes
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_TIED = 1024  # elements from which a float initializer with several users counts as a tied weight


class Folder:
    """The state of the walk.

    Attributes:
        nodes: the emitted nodes.
        constants: every tensor with a known value: the file's own tensor, or a folded array.
        alias: tensor -> the tensor that it equals.
        counts: how many nodes were folded or removed, by what they were.
    """

    def __init__(
        self,
        types: Types,
        constants: dict[str, TensorProto | Array],
        declared: Mapping[str, onnx.TypeProto],
        outputs: frozenset[str],
        pinned: frozenset[str],
        uses: Mapping[str, int],
        taken: set[str],
    ) -> None:
        self.types = types
        self.constants = constants
        self.nodes: list[onnx.NodeProto] = []
        self.alias: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._declared = declared
        self.outputs = outputs
        self._pinned = pinned
        self._uses = uses
        self._taken = taken
        self._values: dict[str, Array] = {}
        self._zeros = Zeros(self.constant)
        self._sizes = Sizes()
        self._opset = next((o.version for o in types.opsets if not o.domain), 1)

    # values

    def constant(self, name: str) -> Array | None:
        """The number behind `name`, or None if it is not a constant at hand."""
        stored = self.constants.get(name)
        if stored is None or isinstance(stored, np.ndarray):
            return stored
        if name not in self._values:
            if stored.data_location == TensorProto.EXTERNAL:
                return None
            self._values[name] = numpy_helper.to_array(stored)
        return self._values[name]

    def small(self, name: str) -> Array | None:
        """A small constant, or the known parts of a shape (dtype object, with `Dim`s); else None."""
        if name in self._values:
            return self._values[name] if self._values[name].size <= _SMALL else None
        if (stored := self.constants.get(name)) is None:
            return None
        size = stored.size if isinstance(stored, np.ndarray) else int(np.prod(stored.dims, dtype=np.int64))
        return self.constant(name) if size <= _SMALL else None

    def _telling(self, name: str) -> Array | None:
        """A small constant that a shape may depend on; of floating-point ones these are scales and limits."""
        stored = self.constants.get(name)
        if isinstance(stored, TensorProto) and stored.data_type in _FLOATS:
            return None if math.prod(stored.dims) > _SCALES else self.small(name)
        return self.small(name)

    # the walk

    def visit(self, node: onnx.NodeProto) -> None:
        """Fold, alias or emit `node`."""
        for index, name in enumerate(node.input):
            if name in self.alias:
                node.input[index] = self.alias[name]
        if node.domain == "ai.onnx":
            node.domain = ""
        ends_here = any(o in self.outputs for o in node.output)
        plain = not node.domain
        if plain and node.op_type == "Constant" and not ends_here:
            tensor = constant_node_value(node, node.output[0])
            if tensor is not None:
                self._hold(node.output[0], tensor)
                self._count("Constant nodes made initializers")
                return
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        parts = None if plain else expand(node, attributes, self, self._opset)
        if parts is not None:
            self._count(f"{node.op_type} nodes taken apart")
            for part in parts:
                self.visit(part)
            return
        if plain and not ends_here and self._fold(node, attributes):
            self._count("nodes folded into constants")
            return
        if self._repeats(node):
            self._count("sizes computed before removed")
            return
        self._specialise(node, attributes)
        if leave_out_empty(node, attributes, self.types):
            self._count("Concat nodes rid of operands without length")
        if self._zeros.visit(node):
            self._count("first states of zeros left out")
        self._infer(node, attributes)
        if passes_through(node, attributes, self.types, self.small, self._opset) and self._bypass(node):
            self._count(f"{node.op_type} nodes that change nothing removed")
            return
        self.nodes.append(node)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _hold(self, name: str, value: TensorProto | Array) -> None:
        self.constants[name] = value
        if isinstance(value, np.ndarray):
            kind, shape = onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            self.types.set_constant(name, kind, shape)
        else:
            self.types.set_constant(name, value.data_type, value.dims)

    def _fold(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> bool:
        """Whether all outputs of `node` became constants; what is known in part is remembered."""
        op = node.op_type
        if op in NEVER or op == "Identity":
            return False
        if op in ("Shape", "Size"):
            results, element = self._shape(node, attributes), int(TensorProto.INT64)
        else:
            if not node.input or any(
                n and n not in self.constants and n not in self._values for n in node.input
            ):
                return False
            if all(n in self.constants or n not in self._values for n in node.input):
                return self._evaluate(node, attributes)
            results, element = self._evaluate_partial(node, attributes)
        if results is None:
            return False
        if all(is_known(r) for r in results):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
            for name, result in zip(node.output, results, strict=False):
                if name:
                    self._hold(name, result.astype(dtype))
            return True
        for name, result in zip(node.output, results, strict=False):
            if name:
                self._values[name] = result
                self.types.set_constant(name, element, result.shape)
        return False

    def _shape(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> list[Array] | None:
        if (shape := self.types.shape(node.input[0])) is None:
            return None
        if node.op_type == "Size":
            total = np.empty((), dtype=object)
            total[()] = product(shape)
            return [total]
        return [array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))])]

    def _evaluate_partial(
        self, node: onnx.NodeProto, attributes: Mapping[str, Any]
    ) -> tuple[list[Array] | None, int]:
        op, inputs = node.op_type, [self.small(n) if n else None for n in node.input]
        element = self.types.element(node.input[1 if op == "Where" else 0])
        if op == "Cast":
            element = int(attributes["to"])
        if any(n and v is None for n, v in zip(node.input, inputs, strict=True)):
            return None, element
        try:
            results = evaluate(op, attributes, inputs)
        except Unknown:
            return None, element
        if any(r.size > _SMALL for r in results):
            return None, element
        return results, int(TensorProto.BOOL) if op == "Equal" else element

    def _evaluate(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> bool:
        """Fold a node of which all inputs are constants."""
        if any(self._is_tied(n) for n in node.input):
            return False
        light = node.op_type in FUNCTIONS and all(self.small(n) is not None for n in node.input if n)
        if light and node.op_type not in ("ConstantOfShape", "Expand", "Range"):  # these may grow
            try:
                results = evaluate(
                    node.op_type, attributes, [self.small(n) if n else None for n in node.input]
                )
                return sum(r.nbytes for r in results) <= SMALL_BYTES and self._hold_all(node, results)
            except Unknown:
                pass
        inputs = {n: v for n in node.input if n and (v := self.constant(n)) is not None}
        if any(n and n not in inputs for n in node.input):
            return False
        types = self.types.infer(node, inputs)
        if not may_fold(types, list(inputs.values())) or any(o and o not in types for o in node.output):
            return False
        folded = reference(node, inputs, types, self.types.opsets)
        return folded is not None and self._hold_all(node, folded)

    def _hold_all(self, node: onnx.NodeProto, results: list[Array]) -> bool:
        names = [o for o in node.output if o]
        if len(names) != len(results):
            return False
        for name, result in zip(names, results, strict=True):
            self._hold(name, result)
        return True

    def _is_tied(self, name: str) -> bool:
        """Whether `name` is a weight that several nodes share, so that folding would part them."""
        tensor = self.constants.get(name)
        if not isinstance(tensor, TensorProto) or self._uses.get(name, 0) < 2:
            return False
        return tensor.data_type in _FLOATS and int(np.prod(tensor.dims, dtype=np.int64)) >= _TIED

    # inputs that are known in part

    def _partial(self, node: onnx.NodeProto, index: int) -> Array | None:
        """Input `index` if it is known in part but is not a constant."""
        if index >= len(node.input) or node.input[index] in self.constants:
            return None
        return self._values.get(node.input[index])

    def _specialise(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        """Replace inputs that are known well enough by constants (see `targets`)."""
        if node.domain or len(node.input) < 2:
            return
        op, shape = node.op_type, self.types.shape(node.input[0])
        new: Array | None = None
        index = 1
        if op == "Reshape" and (value := self._partial(node, 1)) is not None:
            if attributes.get("allowzero", 0) and targets.copies(shape, value):
                del attributes["allowzero"]
                kept = [a for a in node.attribute if a.name != "allowzero"]
                del node.attribute[:]
                node.attribute.extend(kept)
            new, _ = targets.reshape(shape, value, bool(attributes.get("allowzero", 0)))
            place = targets.follower(value) if new is None else None
            if place is not None:
                self._choose(node, np.arange(len(value)) != place, -1)
        elif op == "Expand" and (value := self._partial(node, 1)) is not None:
            new, _ = targets.expand(shape, value)
            same = targets.own_lengths(shape, value) if new is None else None
            if same is not None:
                self._choose(node, ~same, 1)
        elif op == "Slice" and (value := self._partial(node, 2)) is not None:
            index, new = 2, self._slice_ends(node, shape, value)
        elif op == "Resize" and (value := self._partial(node, 3)) is not None:
            policy = attributes.get("keep_aspect_ratio_policy", b"stretch")
            if "axes" not in attributes and policy == b"stretch":
                index, new = 2, targets.resize_scales(shape, value)
                if new is not None:
                    del node.input[3]
        if new is not None:
            node.input[index] = self.new(f"{node.name or node.output[0]}_{index}", new)
            self._count(f"{op} nodes with computed arguments made constant")

    def _choose(self, node: onnx.NodeProto, computed: Array, otherwise: int) -> None:
        """Let the target of `node` say what is computed at run time where `computed`, and `otherwise` elsewhere."""
        output = self.free(f"{node.name or node.output[0]}_target")
        condition = self.new(f"{output}_computed", computed)
        other = self.new(f"{output}_{'rest' if otherwise < 0 else 'keep'}", np.array([otherwise]))
        where = onnx.helper.make_node("Where", [condition, node.input[1], other], [output], name=output)
        self.visit(where)
        node.input[1] = self.alias.get(output, output)
        self._count(f"{node.op_type} targets freed of lengths that the data have")

    def _slice_ends(self, node: onnx.NodeProto, shape: Any, ends: Array) -> Array | None:
        axes = self.small(node.input[3]) if len(node.input) > 3 and node.input[3] else np.arange(len(ends))
        steps = self.small(node.input[4]) if len(node.input) > 4 and node.input[4] else np.ones(1)
        starts = self.small(node.input[1])
        if axes is None or steps is None or starts is None or shape is None:
            return None
        if not all(is_known(v) for v in (axes, steps, starts)) or np.any(steps <= 0):
            return None
        return targets.slice_ends(shape, ends, [int(a) % len(shape) for a in axes])

    def new(self, name: str, value: Array) -> str:
        """A new constant, under this name or one like it."""
        free = self.free(name)
        self._hold(free, value)
        return free

    def free(self, name: str) -> str:
        """A name that nothing has yet; it is taken now."""
        return unique(name, self._taken)

    # types of what is emitted

    def _infer(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        values = {n: v for n in node.input if n and (v := self._telling(n)) is not None}
        found = self.types.infer(node, values)
        for name in node.output:
            if name in found and not vague(found[name]):
                self.types.set(name, found[name])
            elif name and (name in self._declared or name in found):
                self.types.set(name, self._declared.get(name, found.get(name, onnx.TypeProto())))
        if not node.domain:
            refine(node, attributes, self.types, self.small)

    # aliases

    def _repeats(self, node: onnx.NodeProto) -> bool:
        """Let readers of a size that the network's inputs have too read it from them, once."""
        result = node.output[0] if len(node.output) == 1 else ""
        value = None if result in self.constants else self._values.get(result)
        first = self._sizes.first(node, self.types.element(result), value)
        if first is None or result in self._pinned or result in self.outputs:
            return False
        self.alias[result] = first
        return True

    def _bypass(self, node: onnx.NodeProto) -> bool:
        """Let readers of the output read the input, where names allow it."""
        source, result = node.input[0], node.output[0]
        if result in self._pinned or result in self.outputs:
            return False
        self.alias[result] = source
        if result in self._values and source not in self._values:
            self._values[source] = self._values[result]
        return True

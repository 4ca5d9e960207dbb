"""A small seeded builder of ONNX models with `onnx.helper`, for tests.

Values are named by their shapes without the batch: `shape[x]` is (C, H, W) for images, (T, D) for
sequences, (D,) for features. Each method adds the operators of one layer and returns its output's name;
node names are TorchScript-like paths under the current `scope`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper


class Builder:
    """Collects nodes and weights; `finish` makes the model, with the dynamic batch 'N'."""

    def __init__(self, seed: int = 0, *, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.scope = ""
        self.shape: dict[str, tuple[int, ...]] = {}
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []
        self._inputs: list[tuple[str, int]] = []
        self._numbers: dict[str, int] = {}

    def input(self, name: str, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> str:
        """A graph input of N x `shape`."""
        self.shape[name] = tuple(shape)
        self._inputs.append((name, kind))
        return name

    def weight(self, name: str, value: ArrayLike) -> str:
        """An initializer, under the current scope."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = self._unique(f"{self.scope}.{name}" if self.scope else name)
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def add(
        self, op: str, *inputs: str, shape: Sequence[int] | None = None, outputs: int = 1, **attributes: Any
    ) -> str:
        """A node's first output; `shape` is the outputs' without batch, by default the first input's."""
        path = self._unique("/" + "/".join([*self.scope.split("."), op]) if self.scope else f"/{op}")
        names = [f"{path}_output_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name=path, **attributes))
        for name in names:
            self.shape[name] = tuple(self.shape[inputs[0]] if shape is None else shape)
        return names[0]

    def normal(self, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def conv(
        self,
        x: str,
        out: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        group: int = 1,
        bias: bool = True,
        name: str = "conv",
    ) -> str:
        """A convolution that keeps the resolution (divided by `stride`); (C, H, W) -> (out, H', W')."""
        channels, height, width = self.shape[x]
        fan = channels // group * kernel * kernel
        with self.within(name):
            inputs = [
                x,
                self.weight("weight", self.normal(out, channels // group, kernel, kernel, scale=fan**-0.5)),
            ]
            if bias:
                inputs.append(self.weight("bias", self.normal(out, scale=0.1)))
            pad = kernel // 2
            size = tuple((s + 2 * pad - kernel) // stride + 1 for s in (height, width))
            return self.add(
                "Conv",
                *inputs,
                shape=(out, *size),
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=[pad] * 4,
                group=group,
            )

    def batch_norm(self, x: str, name: str = "bn") -> str:
        count = self.shape[x][0]
        with self.within(name):
            parameters = (
                self.weight("weight", self.rng.uniform(0.5, 1.5, count)),
                self.weight("bias", self.normal(count, scale=0.2)),
                self.weight("running_mean", self.normal(count, scale=0.2)),
                self.weight("running_var", self.rng.uniform(0.5, 1.5, count)),
            )
            return self.add("BatchNormalization", x, *parameters, epsilon=1e-5)

    def conv_bn(
        self, x: str, out: int, kernel: int = 3, *, relu: bool = True, number: str = "", **options: Any
    ) -> str:
        """Convolution without bias, BatchNormalization, Relu."""
        x = self.batch_norm(
            self.conv(x, out, kernel, bias=False, name=f"conv{number}", **options), f"bn{number}"
        )
        return self.add("Relu", x) if relu else x

    def linear(self, x: str, out: int, name: str = "fc") -> str:
        """Gemm on features (D,), MatMul + Add on sequences (T, D)."""
        *front, size = self.shape[x]
        with self.within(name):
            bias = self.normal(out, scale=0.1)
            if not front:
                weight = self.weight("weight", self.normal(out, size, scale=size**-0.5))
                return self.add("Gemm", x, weight, self.weight("bias", bias), shape=(out,), transB=1)
            weight = self.weight("weight", self.normal(size, out, scale=size**-0.5))
            y = self.add("MatMul", x, weight, shape=(*front, out))
            return self.add("Add", y, self.weight("bias", bias))

    def layer_norm(self, x: str, name: str = "norm") -> str:
        size = self.shape[x][-1]
        with self.within(name):
            weight = self.weight("weight", self.rng.uniform(0.5, 1.5, size))
            return self.add(
                "LayerNormalization", x, weight, self.weight("bias", self.normal(size, scale=0.1)), axis=-1
            )

    def reshape(self, x: str, target: Sequence[int], shape: Sequence[int]) -> str:
        return self.add("Reshape", x, self.weight("shape", np.array(target, np.int64)), shape=shape)

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """`perm` with the batch as axis 0, which must stay first."""
        shape = [self.shape[x][p - 1] for p in perm[1:]]
        return self.add("Transpose", x, shape=shape, perm=list(perm))

    def gelu(self, x: str) -> str:
        """x/2 (1 + erf(x / sqrt 2)), as exporters below opset 20 write it."""
        y = self.add("Erf", self.add("Div", x, self.weight("sqrt2", np.float32(2**0.5))))
        y = self.add("Mul", x, self.add("Add", y, self.weight("one", np.float32(1))))
        return self.add("Mul", y, self.weight("half", np.float32(0.5)))

    def silu(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))

    def pool(self, x: str, kernel: int = 2, *, op: str = "MaxPool") -> str:
        channels, height, width = self.shape[x]
        shape = (channels, height // kernel, width // kernel)
        return self.add(op, x, shape=shape, kernel_shape=[kernel, kernel], strides=[kernel, kernel])

    def head(self, x: str, classes: int = 10) -> str:
        """Global average pooling, flatten, Gemm: (C, H, W) -> (classes,)."""
        channels = self.shape[x][0]
        x = self.add("GlobalAveragePool", x, shape=(channels, 1, 1))
        return self.linear(self.add("Flatten", x, shape=(channels,), axis=1), classes)

    def within(self, name: str) -> _Scope:
        """A context in which the module path is one part longer."""
        return _Scope(self, name)

    def finish(self, *outputs: str) -> ModelProto:
        """The checked model; the outputs are called 'y', 'y1', ..."""
        names = ["y" if i == 0 else f"y{i}" for i in range(len(outputs))]
        renamed = dict(zip(outputs, names, strict=True))
        for node in self._nodes:
            for names_of in (node.input, node.output):
                for i, name in enumerate(names_of):
                    names_of[i] = renamed.get(name, name)
        graph = helper.make_graph(
            self._nodes,
            "test",
            [helper.make_tensor_value_info(n, kind, ["N", *self.shape[n]]) for n, kind in self._inputs],
            [
                helper.make_tensor_value_info(renamed[o], TensorProto.FLOAT, ["N", *self.shape[o]])
                for o in outputs
            ],
            self._weights,
        )
        others = sorted({node.domain for node in self._nodes} - {""})
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in others)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        model.producer_name = "onnxnas.testing"
        checker.check_model(model)
        return model

    def _unique(self, name: str) -> str:
        number = self._numbers.get(name, 0)
        self._numbers[name] = number + 1
        return f"{name}_{number}" if number else name


class _Scope:
    def __init__(self, builder: Builder, name: str) -> None:
        self._builder, self._before = builder, builder.scope
        self._name = f"{self._before}.{name}" if self._before else name

    def __enter__(self) -> None:
        self._builder.scope = self._name

    def __exit__(self, *_: object) -> None:
        self._builder.scope = self._before

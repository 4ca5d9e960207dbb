"""The super-network: the canonical ONNX graph executed in torch, with weights shared by all sub-networks.

Its parameters are the file's float initializers under their ONNX names; a sub-network is the plan (list of
edits) that would cut it out of the file, read as slices of these parameters. So what is trained is what is
written, and nothing is ever exported from torch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxnas import ops
from onnxnas.errors import ConfigError
from onnxnas.supernet import parameters
from onnxnas.supernet.batchnorm import BatchNormMode, State, Statistics
from onnxnas.supernet.fixed import PlannedGraph
from onnxnas.supernet.program import Compiler, Function, Program, View
from onnxnas.types import Node, Subnet
from rewriters.edits import Edit, SetInitializer

Batch = Tensor | Mapping[str, Tensor]
_CACHED_PROGRAMS = 256


class SuperNetwork(nn.Module):
    """Executes the sub-network made active by `activate`, at first the maximal one.

    `weights` gives values other than the file's, by ONNX name; kernel matrices (below) may be among them.
    `bf16` runs the forward pass under autocast to bfloat16; `channels_last` lays 4-D inputs out so.

    A kernel that can shrink has one square matrix per smaller size, the identity at first, by which the
    flattened cropped kernel is multiplied (Cai et al., Once-for-All, 2020, section 3); its name is
    `kernel:<node>:<size>` and it exists once a sub-network has asked for it or the space lists the choice.

    Raises ModelError when an operator has no torch function, ConfigError when `weights` does not fit.
    """

    def __init__(
        self,
        space: PlannedGraph,
        *,
        weights: Mapping[str, NDArray[Any]] | None = None,
        channels_last: bool = True,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.space = space
        self.channels_last = channels_last
        self.bf16 = bf16
        graph = space.graph
        given = dict(weights or {})
        self._initializers: dict[str, NDArray[Any]] = dict(graph.initializers)
        for name in [name for name in given if name in self._initializers]:
            old, new = self._initializers[name], np.asarray(given.pop(name))
            if old.shape != new.shape:
                raise ConfigError(f"weight {name!r} has shape {new.shape}; the model's has {old.shape}")
            self._initializers[name] = new.astype(old.dtype)
        trained = parameters.trainable(graph.nodes, graph.initializers, graph.inputs)
        floats = frozenset(name for name, v in self._initializers.items() if parameters.is_float(v))
        self._slots: dict[str, str] = {}
        for name in self._initializers:
            if name in floats:
                value = torch.from_numpy(np.array(self._initializers[name]))
                self._add(name, value, name in trained)
        self._matrices: dict[str, tuple[str, tuple[int, ...]]] = {}
        for choice in getattr(space, "kernels", ()):
            for size in choice.choices:
                if tuple(size) != tuple(choice.size):
                    self._add_matrix(choice.node, tuple(size))
        self.load(given)
        self.mode = BatchNormMode(
            {n.name: n.inputs[3] for n in graph.nodes if n.op_type == "BatchNormalization"}
        )
        self._undecayed = parameters.undecayed(graph.nodes, self._initializers)
        self._compiler = Compiler(
            graph.nodes, self._initializers, floats, graph.inputs, graph.outputs, self._make, self._matrix
        )
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self.subnet = Subnet()
        self._program = self._compiled(self.subnet)

    # ---- parameters ----

    def _add(self, name: str, value: Tensor, trained: bool) -> None:
        slot = f"w{len(self._slots)}"
        self._slots[name] = slot
        if trained:
            if value.dim() == 4 and self.channels_last:
                value = value.contiguous(memory_format=torch.channels_last)
            self.register_parameter(slot, nn.Parameter(value))
        else:
            self.register_buffer(slot, value)

    def _add_matrix(self, node: str, size: tuple[int, ...]) -> str:
        name = f"kernel:{node}:{'x'.join(map(str, size))}"
        if name not in self._slots:
            n = int(np.prod(size))
            self._add(name, torch.eye(n), True)
            self._matrices[name] = (node, size)
        return name

    def _matrix(self, node: str, size: tuple[int, ...]) -> str | None:
        name = f"kernel:{node}:{'x'.join(map(str, size))}"
        return name if name in self._slots else None

    def tensor(self, name: str) -> Tensor:
        """The whole parameter or buffer that holds a float initializer, by ONNX name."""
        slot = self._slots[name]
        found = self._parameters.get(slot)
        return found if found is not None else self._buffers[slot]  # type: ignore[return-value]

    def named_weights(self) -> dict[str, nn.Parameter]:
        """The trained parameters by ONNX name, kernel matrices included."""
        pairs = ((name, self.tensor(name)) for name in self._slots)
        return {name: value for name, value in pairs if isinstance(value, nn.Parameter)}

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to this parameter: not to biases, norms and kernel matrices."""
        return name not in self._undecayed and name not in self._matrices

    def weights(self) -> dict[str, NDArray[Any]]:
        """Values of all trained parameters by ONNX name, kernel matrices included, in the file's dtypes."""
        return {
            name: value.detach().cpu().contiguous().numpy().copy()
            for name, value in self.named_weights().items()
        }

    def load(self, weights: Mapping[str, NDArray[Any] | Tensor]) -> None:
        """Set parameters by name. Raises ConfigError for an unknown name or a wrong shape."""
        with torch.no_grad():
            for name, value in weights.items():
                if name not in self._slots:
                    raise ConfigError(f"weight {name!r} belongs to no float initializer of the model")
                target = self.tensor(name)
                new = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
                if new.shape != target.shape:
                    raise ConfigError(
                        f"weight {name!r} has shape {tuple(new.shape)}; the model's has {tuple(target.shape)}"
                    )
                target.copy_(new)

    # ---- what is active ----

    def activate(self, subnet: Subnet, statistics: Statistics | None = None) -> None:
        """Make `subnet` what `forward` computes; `statistics` are for evaluation (None: the file's own)."""
        self._program = self._compiled(subnet)
        self.subnet = subnet
        self.mode.use(statistics, self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        for slot in self._slots.values():
            return getattr(self, slot).device  # type: ignore[no-any-return]
        return torch.device("cpu")

    @property
    def live_nodes(self) -> frozenset[str]:
        """Names of the nodes that the active sub-network executes."""
        return self._program.live

    def active_value(self, name: str) -> Tensor:
        """An initializer as the active sub-network reads it; gradients flow back to the whole parameter."""
        view = self._program.views.get(name)
        value = self.tensor(name)
        return value if view is None else view.of(value, self._matrix_of(view))

    def _matrix_of(self, view: View) -> Tensor | None:
        return None if view.matrix is None else self.tensor(view.matrix)

    def _compiled(self, subnet: Subnet) -> Program:
        key = subnet.key()
        program = self._programs.get(key)
        if program is None:
            program = self._compiler.compile(self.space.plan(subnet), self.device)
            self._programs[key] = program
            if len(self._programs) > _CACHED_PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(key)
        return program

    def _make(self, node: Node, constants: Mapping[int, NDArray[Any]]) -> Function:
        return ops.torch_function(node, constants, self.mode)

    def train(self, mode: bool = True) -> SuperNetwork:
        """Training: BatchNormalization uses each batch's statistics. Evaluation: see `activate`."""
        super().train(mode)
        self.mode.state = "train" if mode else "eval"
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SuperNetwork:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._programs.clear()  # their gather indices live on the old device
        self._program = self._compiled(self.subnet)
        return self

    # ---- running ----

    def forward(self, *inputs: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs of the active sub-network in graph order.

        `inputs`: one tensor per graph input, in order, or one mapping by input name. Outputs computed in
        bfloat16 come back as float32.
        """
        program = self._program
        values: list[Tensor | None] = [None] * program.slots
        self._feed(program, values, inputs)
        for name, index, view in program.reads:
            value = self.tensor(name)
            values[index] = value if view is None else view.of(value, self._matrix_of(view))
        for index, constant in program.constants:
            values[index] = constant
        with self._precision():
            for step in program.steps:
                result = step.function([values[i] for i in step.inputs])
                if type(result) is tuple or type(result) is list:
                    for index, part in zip(step.outputs, result, strict=False):
                        if index >= 0:
                            values[index] = part
                elif step.outputs[0] >= 0:
                    values[step.outputs[0]] = result
                for index in step.dead:
                    values[index] = None
        found = [values[i] for i in program.outputs]
        return tuple(v.float() if v.dtype == torch.bfloat16 else v for v in found if v is not None)

    def _feed(
        self,
        program: Program,
        values: list[Tensor | None],
        inputs: tuple[Tensor | Mapping[str, Tensor], ...],
    ) -> None:
        if len(inputs) == 1 and not isinstance(inputs[0], Tensor):
            by_name = inputs[0]
            given = [by_name[name] for name, _ in program.inputs]
        else:
            given = [value for value in inputs if isinstance(value, Tensor)]
        for (_, index), value in zip(program.inputs, given, strict=True):
            if value.dim() == 4 and self.channels_last and value.is_floating_point():
                value = value.contiguous(memory_format=torch.channels_last)
            values[index] = value

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.bf16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def recalibrate(self, batches: Iterable[Batch], subnet: Subnet) -> Statistics:
        """Count the BatchNormalization statistics of `subnet` over `batches`.

        `batches` should be training images augmented as in training. The sub-network stays active, with
        the statistics it was given before forgotten; the training flag is as before.
        """
        return self._measure(batches, subnet, "calibrate")

    def observe(self, batches: Iterable[Batch], subnet: Subnet) -> Statistics:
        """The statistics of what reaches each BatchNormalization when all normalise by the file's own."""
        return self._measure(batches, subnet, "observe")

    @torch.no_grad()
    def _measure(self, batches: Iterable[Batch], subnet: Subnet, state: State) -> Statistics:
        self.activate(subnet)
        before, samples = self.mode.state, 0
        self.mode.start()
        self.mode.state = state
        try:
            for batch in batches:
                first = batch if isinstance(batch, Tensor) else next(iter(batch.values()))
                samples += int(first.shape[0])
                self.forward(batch)
        finally:
            self.mode.state = before
        return self.mode.counted(samples)

    # ---- back to ONNX ----

    def export_edits(self, subnet: Subnet, statistics: Statistics | None = None) -> tuple[Edit, ...]:
        """Edits by which `graph.rewrite` makes `subnet` with the trained weights (and statistics) of the file.

        `subnet` becomes the active one.
        """
        self.activate(subnet, statistics)
        plan = self.space.plan(subnet)
        edits: list[Edit] = list(plan)
        with torch.no_grad():
            for name, value in self.live_values(statistics).items():
                edits.append(SetInitializer(name, value))
        return tuple(edits)

    def live_values(self, statistics: Statistics | None = None) -> dict[str, NDArray[Any]]:
        """Every float initializer that the active sub-network reads, sliced; `statistics` put in place."""
        found: dict[str, NDArray[Any]] = {}
        for name, _, _ in self._program.reads:
            found[name] = self.active_value(name).detach().cpu().contiguous().numpy().copy()
        if statistics is not None:
            for node in self.space.graph.nodes:
                if node.op_type == "BatchNormalization" and node.inputs[3] in statistics.mean:
                    mean, var = node.inputs[3], node.inputs[4]
                    found[mean] = statistics.mean[mean].astype(found[mean].dtype)
                    found[var] = statistics.var[mean].astype(found[var].dtype)
        return found

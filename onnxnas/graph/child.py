"""The parent's side of `worker`: start it early, ask it, and survive whatever becomes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import TracebackType

import onnx
from google.protobuf.message import EncodeError
from onnx import GraphProto, ModelProto

from onnxnas.errors import EnvironmentProblem, ModelError
from onnxnas.graph import tensors, worker
from onnxnas.graph.limits import Limits
from onnxnas.graph.worker import frame, read_frame

_SMALL = 2048  # elements; initializers up to here travel, since shapes may depend on them
_SMALL_INTEGERS = 1 << 16


class Child:
    """A context manager around one child process with limits on memory and time.

    All methods raise ModelError when the child refuses the model, dies or takes too long.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        paths = [path for path in sys.path if path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        environment["OPENBLAS_NUM_THREADS"] = "1"
        seconds = max(1, int(limits.seconds))
        command = [sys.executable, "-P", worker.__file__, str(limits.memory), str(seconds)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentProblem(f"cannot start the checking process {sys.executable}: {error}") from None

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        process = self._process
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def check(self, model: ModelProto) -> None:
        """Run onnx's checker on a model without its large weights (see `strip`)."""
        copy = ModelProto()
        copy.CopyFrom(model)
        for value in (*copy.graph.input, *copy.graph.output):  # the checker insists on what runtimes infer
            if value.type.WhichOneof("value") in (None, "tensor_type"):
                kind = value.type.tensor_type
                kind.elem_type = kind.elem_type or onnx.TensorProto.FLOAT
                kind.shape.SetInParent()
        self._ask(b"c", _serialize(copy), "the ONNX checker")

    def infer(self, model: ModelProto) -> GraphProto:
        """Shape inference with data propagation: a graph that has only the inferred value_info."""
        graph = GraphProto()
        graph.ParseFromString(self._ask(b"i", _serialize(model), "shape inference"))
        return graph

    def disagreement(self, model: ModelProto) -> str:
        """What shape inference says of operands whose dimensions do not agree; '' where it finds none."""
        try:
            self._ask(b"v", _serialize(model), "shape inference")
        except ModelError as error:
            return str(error) if "ncompatible dimensions" in str(error) else ""
        return ""

    def inline(self, model: ModelProto) -> ModelProto:
        """The model with all local functions inlined."""
        inlined = ModelProto()
        inlined.ParseFromString(self._ask(b"f", _serialize(model), "inlining of functions"))
        return inlined

    def converted(self, model: ModelProto, opset: int) -> ModelProto:
        """The model in the words of another opset."""
        found = ModelProto()
        payload = bytes([opset]) + _serialize(model)
        found.ParseFromString(self._ask(b"o", payload, f"conversion to opset {opset}"))
        return found

    def _ask(self, kind: bytes, payload: bytes, what: str) -> bytes:
        process, expired = self._process, threading.Event()
        assert process.stdin is not None
        assert process.stdout is not None

        def expire() -> None:
            expired.set()
            self._kill()

        timer = threading.Timer(self._limits.seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            try:
                process.stdin.write(frame(kind, payload))
                process.stdin.flush()
                answer = read_frame(process.stdout)
            except (BrokenPipeError, ConnectionResetError):
                answer = None
        finally:
            timer.cancel()
        if answer is None:
            if expired.is_set():
                raise ModelError(f"{what} took more than {self._limits.seconds:g} s on this model")
            raise ModelError(f"{what} {_end(process.wait())} on this model")
        if answer[0] == b"e":
            text = " ".join(answer[1].decode("utf-8", "replace").split())
            if text.startswith("MemoryError"):
                text = f"out of memory (limit {self._limits.memory:,} bytes)"
            raise ModelError(f"{what} refuses the model: {text[:500]}")
        return answer[1]

    def _kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _end(status: int) -> str:
    if status < 0:
        try:
            return f"crashed ({signal.Signals(-status).name})"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended without an answer (exit status {status})"


def _serialize(model: ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString()
        return data
    except (EncodeError, ValueError):
        raise ModelError(
            "the model is too large for its structure to be checked (2 GB without weights)"
        ) from None


def strip(model: ModelProto) -> ModelProto:
    """A copy in which large initializers have become typed inputs: all structure, hardly any weights."""
    out = ModelProto(ir_version=max(model.ir_version, 4))
    out.opset_import.extend(model.opset_import)
    out.functions.extend(model.functions)
    graph = out.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    present = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        count = 1
        for dim in tensor.dims:
            count *= dim
        if count <= (_SMALL if tensor.data_type in tensors.FLOATS else _SMALL_INTEGERS):
            graph.initializer.append(tensor)
        elif tensor.name not in present:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(value)
    return out

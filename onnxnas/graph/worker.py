"""The child process, in which onnx's native code first meets a model from outside.

`python worker.py MEMORY SECONDS` (as a file: it needs onnx and nothing of this package) answers requests
on standard input until it ends. A request is one byte of operation (c: check, i: infer shapes, v: verify
that shapes agree, f: inline local functions, o: convert to the opset that a byte in front of the model says),
eight bytes of length (little endian) and a serialized model.
An answer is one byte (k: done, e: refused), eight bytes of length and a payload: nothing, a GraphProto that
has only the inferred values, a model, or a message.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import IO

HEADER = 9


def frame(kind: bytes, payload: bytes) -> bytes:
    """One message: kind, length, payload."""
    return kind + len(payload).to_bytes(8, "little") + payload


def read_frame(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The next message; None at the end of the stream, also when it ends within a message."""
    header = stream.read(HEADER)
    if len(header) < HEADER:
        return None
    length = int.from_bytes(header[1:], "little")
    payload = stream.read(length)
    return (header[:1], payload) if len(payload) == length else None


def _answer(kind: bytes, payload: bytes) -> bytes:
    import onnx

    if kind == b"c":
        onnx.checker.check_model(payload)
        onnx.shape_inference.infer_shapes(payload, data_prop=True)
        return b""
    model = onnx.ModelProto()
    if kind == b"o":
        import onnx.version_converter

        model.ParseFromString(payload[1:])
        converted: bytes = onnx.version_converter.convert_version(model, payload[0]).SerializeToString()
        return converted
    model.ParseFromString(payload)
    if kind == b"f":
        import onnx.inliner

        inlined: bytes = onnx.inliner.inline_local_functions(model).SerializeToString()
        return inlined
    if kind == b"v":
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        return b""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    inferred.graph.ClearField("node")
    inferred.graph.ClearField("initializer")
    values: bytes = inferred.graph.SerializeToString()
    return values


def main() -> None:
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native code may print: that must not get between the answers
    import onnx.shape_inference  # noqa: F401 (imported while the parent is still reading the file)

    while (request := read_frame(sys.stdin.buffer)) is not None:
        try:
            answer = frame(b"k", _answer(*request))
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the parent's to report)
            text = f"{type(error).__name__}: {error}"
            answer = frame(b"e", text.encode("utf-8", "replace")[:4000])
        answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    main()

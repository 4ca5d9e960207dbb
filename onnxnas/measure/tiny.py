"""Three tiny ONNX models as bytes, so that `doctor` and the conformance kit need no ONNX library.

MATMULS  x[96,96] -> y[96,96]: six products x @ x @ ... @ x (seven factors), opset 13. No weights: all work.
AFFINE   x[n,3] -> (z, y)[n,2]: y = x @ AFFINE_WEIGHT + AFFINE_BIAS, z = sigmoid(y); n is dynamic.
GATHER   i[n] int64 -> y[n,2]: rows of AFFINE_WEIGHT.
"""

from __future__ import annotations

import base64

import numpy as np

from onnxnas.measure.runtime import Array

MATMULS = base64.b64decode(
    "CAg6qQEKEgoBeAoBeBICdDAiBk1hdE11bAoTCgJ0MAoBeBICdDEiBk1hdE11bAoTCgJ0MQoBeBICdDIiBk1hdE11bAoTCgJ0"
    "MgoBeBICdDMiBk1hdE11bAoTCgJ0MwoBeBICdDQiBk1hdE11bAoSCgJ0NAoBeBIBeSIGTWF0TXVsEgFnWhMKAXgSDgoMCAES"
    "CAoCCGAKAghgYhMKAXkSDgoMCAESCAoCCGAKAghgQgQKABAN"
)
AFFINE = base64.b64decode(
    "CAg6sQEKEQoBeAoBdxIBcCIGTWF0TXVsCg4KAXAKAWISAXkiA0FkZAoPCgF5EgF6IgdTaWdtb2lkEgFnKiMIAwgCEAFCAXdK"
    "GAAAgD8AAADAAAAAPwAAgD4AAIC/AABAQCoRCAIQAUIBYkoIAAAAPwAAgL9aFAoBeBIPCg0IARIJCgMSAW4KAggDYhQKAXoS"
    "DwoNCAESCQoDEgFuCgIIAmIUCgF5Eg8KDQgBEgkKAxIBbgoCCAJCBAoAEA0="
)
GATHER = base64.b64decode(
    "CAg6YwoRCgF0CgFpEgF5IgZHYXRoZXISAWcqIwgDCAIQAUIBdEoYAACAPwAAAMAAAAA/AACAPgAAgL8AAEBAWhAKAWkSCwoJ"
    "CAcSBQoDEgFuYhQKAXkSDwoNCAESCQoDEgFuCgIIAkIECgAQDQ=="
)
AFFINE_WEIGHT = np.array([[1, -2], [0.5, 0.25], [-1, 3]], np.float32)
AFFINE_BIAS = np.array([0.5, -1], np.float32)


def matmuls_feeds(seed: int = 0) -> dict[str, Array]:
    """Inputs of MATMULS whose powers stay of order one."""
    x = np.random.default_rng(seed).normal(size=(96, 96)) / np.sqrt(96)
    return {"x": x.astype(np.float32)}

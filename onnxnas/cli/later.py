"""Commands of the interface that this version does not have yet; they say so."""

from __future__ import annotations

import typer

from onnxnas.errors import EnvironmentProblem


def quantize(context: typer.Context) -> None:
    """Precision only (not in this version).

    Example: onnxnas quantize model.onnx --data data.npz --precision int8 -o small.onnx
    """
    raise EnvironmentProblem(
        f"'{context.info_name}' is not there yet: this version searches fp32 models only"
    )


def tune(context: typer.Context) -> None:
    """Runtime knobs, or any external command (not in this version).

    Example: onnxnas tune model.onnx --runtime onnxruntime
    """
    raise EnvironmentProblem(
        f"'{context.info_name}' is not there yet: use 'onnxnas bench' to measure settings by hand"
    )

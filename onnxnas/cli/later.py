"""A command of the interface that this version does not have yet; it says so."""

from __future__ import annotations

import typer

from onnxnas.errors import EnvironmentProblem


def tune(context: typer.Context) -> None:
    """Runtime knobs, or any external command (not in this version).

    Example: onnxnas tune model.onnx --runtime onnxruntime
    """
    raise EnvironmentProblem(
        f"'{context.info_name}' is not there yet: use 'onnxnas bench' to measure settings by hand"
    )

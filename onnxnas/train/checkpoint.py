"""Checkpoints: tensors in safetensors, the rest in JSON; the JSON names the tensors' file.

`state.json` is replaced in one atomic step after its tensors are safely on disk, and files that it does not
name are removed only then. So whenever the process dies, `state.json` is the old or the new one, whole, and
what it names is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch
from torch import Tensor

from onnxnas.errors import RunError

STATE = "state.json"
WEIGHTS = "weights.safetensors"


def write_atomic(path: Path, content: bytes) -> None:
    """Put `content` under `path` so that the file is never seen half-written, not even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_weights(directory: Path, weights: Mapping[str, NDArray[Any]]) -> Path:
    """Write the weights of a finished training, by ONNX name."""
    path = directory / WEIGHTS
    write_atomic(path, safe_numpy.save({name: np.ascontiguousarray(v) for name, v in weights.items()}))
    return path


def load_weights(directory: Path) -> dict[str, NDArray[Any]]:
    """Weights of a finished training, for `SuperNetwork(space, weights=...)`. Raises RunError."""
    path = directory / WEIGHTS
    try:
        return dict(safe_numpy.load(path.read_bytes()))
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: no readable weights ({error}); train again") from error


def save_state(directory: Path, name: str, tensors: Mapping[str, Tensor], body: Mapping[str, Any]) -> None:
    """Make `tensors` and `body` the checkpoint of this directory; `name` must differ from the last one's."""
    file = f"state-{name}.safetensors"
    content = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_atomic(directory / file, safe_torch.save(content))
    text = json.dumps({**body, "schema": 1, "file": file}, indent=1, allow_nan=False)
    write_atomic(directory / STATE, text.encode())
    for old in directory.glob("state-*.safetensors"):
        if old.name != file:
            old.unlink(missing_ok=True)


def load_state(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint of this directory, or None when there is none yet. Raises RunError when damaged."""
    path = directory / STATE
    try:
        body = json.loads(path.read_text())
        tensors = safe_torch.load((directory / Path(body["file"]).name).read_bytes())
    except FileNotFoundError:
        if path.exists():
            raise RunError(f"{path}: its tensors are missing; delete the folder to train again") from None
        return None
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: damaged checkpoint ({error}); delete the folder to train again") from error
    return tensors, body


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by key, and JSON for the rest."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    return tensors, {"groups": state["param_groups"], "plain": plain}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], body: Mapping[str, Any]
) -> None:
    """The inverse of `pack_optimizer`."""
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in body["plain"].items()}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    groups = []
    for saved, now in zip(body["groups"], optimizer.state_dict()["param_groups"], strict=True):
        # JSON has no tuples (Adam's betas)
        groups.append({k: tuple(v) if isinstance(now.get(k), tuple) else v for k, v in saved.items()})
    optimizer.load_state_dict({"state": state, "param_groups": groups})

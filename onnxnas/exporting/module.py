"""The torch module that `module.py:function` builds, with its weights."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from onnxnas.errors import ConfigError
from onnxnas.plugins import load_object


def build_module(spec: str, weights: Path | None = None) -> nn.Module:
    """The module that calling `spec` without arguments gives, in evaluation mode.

    Raises:
        ConfigError: it cannot be built, or the weights do not fit it exactly.
    """
    found = load_object(spec, what="model function")
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ConfigError(f"model function {spec!r}: expected a function that returns a torch module")
        try:
            found = found()
        except Exception as error:
            raise ConfigError(f"model function {spec!r}: {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise ConfigError(f"model function {spec!r}: expected a torch module, got {type(found).__name__}")
    if weights is not None:
        load_weights(found, weights)
    return found.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Loads a .safetensors state dict, strictly; only BatchNorm's `num_batches_tracked` may be absent.

    Raises:
        ConfigError: not such a file, or a name or shape that does not fit; the first one is named.
    """
    if not path.is_file():
        raise ConfigError(f"weights {path}: no such file")
    try:
        given: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"weights {path}: not a safetensors file: {error}") from error
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [k for k in given if k not in wanted]
    if missing:
        raise ConfigError(
            f"weights {path}: no tensor {missing[0]!r} ({len(missing)} missing in all); "
            f"{_near(missing[0], unknown)}"
        )
    if unknown:
        raise ConfigError(
            f"weights {path}: the module has no {unknown[0]!r} ({len(unknown)} unknown in all); "
            f"{_near(unknown[0], list(wanted))}"
        )
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            got, expected = list(tensor.shape), list(wanted[name].shape)
            raise ConfigError(f"weights {path}: {name!r} has shape {got}, the module's {expected}")
    with torch.no_grad():
        module.load_state_dict(given, strict=False)


def _near(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, 1, 0.6)
    return f"nearest name: {near[0]!r}" if near else "give the state dict of this very module"

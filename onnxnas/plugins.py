"""Objects named by the user: `package.module:name` or `path/to/file.py:name`.

Importing such a file runs it: it is the user's own program and is trusted as such.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from onnxnas.errors import ConfigError


def is_reference(spec: str) -> bool:
    """Whether `spec` has the form `module:name` or `file.py:name`."""
    module, colon, name = spec.rpartition(":")
    return bool(colon) and bool(module) and name.isidentifier()


def load_object(spec: str, *, what: str = "plug-in") -> Any:
    """The object that `spec` names; `what` says in error messages what it was wanted for.

    A file is imported under a name of its own, with its folder importable while it is being loaded.

    Raises:
        ConfigError: not of the form, no such file or module, no such name, or its import failed.
    """
    if not is_reference(spec):
        raise ConfigError(f"{what} {spec!r}: expected module:name or file.py:name")
    module, _, name = spec.rpartition(":")
    loaded = (
        _load_file(Path(module), spec, what) if module.endswith(".py") else _load_module(module, spec, what)
    )
    try:
        return getattr(loaded, name)
    except AttributeError:
        raise ConfigError(f"{what} {spec!r}: {module} has no {name!r}") from None


def _load_module(module: str, spec: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"{what} {spec!r}: importing {module} failed: {_brief(error)}") from error


def _load_file(path: Path, spec: str, what: str) -> Any:
    if not path.is_file():
        raise ConfigError(f"{what} {spec!r}: no such file {path}")
    path = path.resolve()
    name = f"onnxnas_user_{path.stem}_{abs(hash(str(path))):x}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"{what} {spec!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{what} {spec!r}: importing {path.name} failed: {_brief(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")

"""Errors, one small tree.

OnnxnasError                  anything this package raises on purpose; carries `exit_code`
├── InputError (2)            what the user gave cannot be used
│   ├── ModelError            the ONNX file
│   ├── DataError             the data set
│   ├── ConfigError           a flag, a configuration key, a sub-network file
│   └── RunError              a run directory: of another model, damaged, locked
├── CheckFailed (1)           a check was made and did not hold
├── EnvironmentProblem (3)    something is missing or refused on this machine
└── Interrupted (4)           stopped by the user; the run can be resumed

A message is one line: what, where, got, expected, what to do.
"""

from __future__ import annotations


class OnnxnasError(Exception):
    """Base of all errors raised on purpose. `exit_code` is the command line's exit status."""

    exit_code: int = 1


class InputError(OnnxnasError):
    """What the user gave cannot be used."""

    exit_code = 2


class ModelError(InputError):
    """The ONNX model cannot be used."""


class DataError(InputError):
    """The data set cannot be used."""


class ConfigError(InputError):
    """A flag, configuration key or sub-network file cannot be used."""


class RunError(InputError):
    """A run directory cannot be used."""


class CheckFailed(OnnxnasError):
    """A check was made and did not hold."""


class EnvironmentProblem(OnnxnasError):
    """Something is missing or refused on this machine."""

    exit_code = 3


class Interrupted(OnnxnasError):
    """Stopped before the end; everything recorded so far is kept and the run can be resumed."""

    exit_code = 4

"""What the search asks of whoever judges a candidate."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from onnxnas.types import Subnet, Trial


@runtime_checkable
class Evaluator(Protocol):
    """Judges candidates.

    Contract:
    - `evaluate` gets an effective sub-network (what cannot matter has its original value) and the number
      that its trial will have, and returns a `Trial` with that sub-network and number.
    - `Trial.values` has a finite figure for every objective when `status` is 'ok'. A missing or non-finite
      figure is recorded as 'invalid'.
    - A candidate that cannot be built, crashes, hangs or computes nonsense is a `status`, not an exception.
      A `ModelError` is recorded as 'refused' and any other unexpected exception as 'crashed', so that one
      bad candidate never ends a search. `EnvironmentProblem`, `RunError`, `ConfigError`, `DataError`,
      `CheckFailed`, `Interrupted` and KeyboardInterrupt end it; what was recorded stays.
    - The same sub-network is evaluated once per study, unless the study was stopped by failures in a row.
    - It is called from one thread of one process; it may keep state (a measuring process, caches), but its
      answer must not depend on the candidates seen before, or resuming would change it.
    """

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        """Judge one candidate."""
        ...

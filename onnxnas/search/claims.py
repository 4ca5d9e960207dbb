"""Who is evaluating what: several processes, on one host or more, work on one study and no candidate twice.

A claim is a running trial of a study of its own beside the real one, named after it. The storage hands out trial
numbers one by one, so of two processes that claim the same candidate at once both see both claims, and the lower
number has it. A claim ends with its owner: on the same host a process that is gone is noticed at once, one on another
host by its claim being there for longer than any candidate should take.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from onnxnas.search.quiet import quiet

_LONGEST = 1800.0  # seconds after which the claim of a process that cannot be asked is void
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Claims:
    """The claims beside the study `name`; `seconds` is how long one of another host is believed."""

    def __init__(self, storage: optuna.storages.BaseStorage, name: str, seconds: float = _LONGEST) -> None:
        self._storage = storage
        with quiet():
            self._study = optuna.create_study(
                storage=storage, study_name=f"{name} (claims)", load_if_exists=True
            )
        self._me = {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._held: dict[str, tuple[int, int]] = {}
        self._seen: dict[int, float] = {}
        self._seconds = seconds

    def take(self, key: str) -> bool:
        """Whether the candidate is this process's to evaluate from now on, until `release`."""
        if self._others(key):
            return False
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING, user_attrs={"candidate": key, **self._me}
        )
        study = self._storage.get_study_id_from_name(self._study.study_name)
        trial = self._storage.create_new_trial(study, template)
        number = self._storage.get_trial_number_from_id(trial)
        self._held[key] = trial, number
        if any(other.number < number for other in self._others(key)):
            self.release(key)
            return False
        return True

    def release(self, key: str) -> None:
        """The candidate is evaluated, or given up."""
        self._storage.set_trial_state_values(self._held.pop(key)[0], TrialState.PRUNED)

    def _others(self, key: str) -> list[FrozenTrial]:
        """The valid claims of other processes."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        _, mine = self._held.get(key, (0, -1))
        same = [t for t in running if t.user_attrs.get("candidate") == key and t.number != mine]
        return [t for t in same if self._valid(t)]

    def _valid(self, claim: FrozenTrial) -> bool:
        said = claim.user_attrs
        if said["host"] == self._me["host"]:
            return bool(said["started"] == _started(said["pid"]))
        first = self._seen.setdefault(claim.number, time.monotonic())
        return time.monotonic() - first < self._seconds


def _host() -> str:
    """What tells this host from others for as long as it runs."""
    boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
    return f"{os.uname().nodename} {boot}"


def _started(pid: int) -> str:
    """When a process of this host began (clock ticks since boot), so that a reused number is another; '' if gone."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if said[0] in "ZX" else said[19]

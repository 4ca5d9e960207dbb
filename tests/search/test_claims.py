"""One candidate, one process: whoever asks, whenever, and whatever became of the first."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

from onnxnas.search import claims
from onnxnas.search.claims import Claims


def storage(url: str) -> optuna.storages.BaseStorage:
    return optuna.storages.get_storage(url)


def test_taken_until_released(url: str) -> None:
    one, two = Claims(storage(url), "s"), Claims(storage(url), "s")
    assert one.take("a")
    assert not two.take("a")
    assert two.take("b")
    one.release("a")
    assert two.take("a")


def test_studies_do_not_meet(url: str) -> None:
    assert Claims(storage(url), "s").take("a")
    assert Claims(storage(url), "t").take("a")


def test_of_many_at_once_one_has_it(url: str) -> None:
    Claims(storage(url), "s")
    with ThreadPoolExecutor(6) as pool:
        took = list(pool.map(lambda _: Claims(storage(url), "s").take("a"), range(6)))
    assert sum(took) == 1


VICTIM = """
import os, signal, sys
sys.path.insert(0, {root!r})
import optuna
from onnxnas.search.claims import Claims
assert Claims(optuna.storages.get_storage({url!r}), "s").take("a")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_dead_owner_has_none(url: str, root: Path) -> None:
    code = VICTIM.format(root=str(root), url=url)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == -9, said.stderr
    assert Claims(storage(url), "s").take("a")


def test_a_silent_host_is_believed_for_a_while(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(claims.time, "monotonic", lambda: now)
    with monkeypatch.context() as there:
        there.setattr(claims, "_host", lambda: "another")
        assert Claims(storage(url), "s").take("a")
    here = Claims(storage(url), "s", seconds=60.0)
    assert not here.take("a")
    now += 59
    assert not here.take("a")
    now += 2
    assert here.take("a")

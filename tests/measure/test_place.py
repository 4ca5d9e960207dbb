"""Measuring processes of one machine keep out of each other's way."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxnas.measure import place as module
from onnxnas.measure.place import Place

_HOLDS = """
import sys, time
from pathlib import Path
from onnxnas.measure.place import Place
place = Place(1, Path(sys.argv[1]))
with place.turn():
    print(*place.cores, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ranked_cores", lambda: (3, 1, 2, 0))


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has a core of this machine and works on it, and which."""
    command = [sys.executable, "-c", _HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


def test_each_has_its_own_while_there_are_enough(tmp_path: Path) -> None:
    places = [Place(count, tmp_path) for count in (1, 2, 1)]
    assert [place.cores for place in places] == [[3], [1, 2], [0]]
    places[1].release()
    places[1].release()
    assert Place(2, tmp_path).cores == [1, 2]


def test_what_is_missing_is_shared(tmp_path: Path) -> None:
    first = Place(3, tmp_path)
    assert first.cores == [1, 2, 3]
    assert Place(2, tmp_path).cores == [0, 3]
    assert Place(9, tmp_path).cores == [0, 1, 2, 3]


def test_one_works_at_a_time_where_a_core_is_shared(tmp_path: Path) -> None:
    places = [Place(count, tmp_path) for count in (3, 2, 4)]
    working: list[int] = []
    most = 0

    def work(number: int) -> None:
        nonlocal most
        for _ in range(5):
            with places[number].turn():
                working.append(number)
                most = max(most, len(working))
                time.sleep(0.002)
                working.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_those_without_a_common_core_work_at_once(tmp_path: Path) -> None:
    one, two = Place(2, tmp_path), Place(2, tmp_path)
    with one.turn(), two.turn():
        assert not set(one.cores) & set(two.cores)


def test_a_process_that_is_killed_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: tuple[subprocess.Popen[str], int]
) -> None:
    process, core = other
    monkeypatch.setattr(module, "ranked_cores", lambda: (core,))
    shared = Place(1, tmp_path)
    assert not shared._locked(shared._held, f"{core}.place", 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert shared._locked(shared._held, f"{core}.place", 0)
    with shared.turn():
        pass


def test_patience_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: tuple[subprocess.Popen[str], int]
) -> None:
    """One that was suspended while it worked keeps the others waiting for so long and no longer."""
    process, core = other
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(module, "ranked_cores", lambda: (core,))
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    begun = time.monotonic()
    with Place(1, tmp_path).turn():
        assert 0.05 <= time.monotonic() - begun < 5


def test_without_a_folder_there_is_no_agreement(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for _ in range(2):
        place = Place(2, file)
        assert place.cores == [1, 3]
        with place.turn():
            pass

"""Where a measuring process runs: cores agreed on with the other measuring processes of this machine.

Two processes that time on one core see each other's inferences as their own pauses, by factors and not by per cent.
The agreement is files that are locked, in the machine's folder for temporary files; the system takes a lock back
when its process ends, however it ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

from onnxnas.measure.cores import ranked_cores

_FOLDER = Path(tempfile.gettempdir()) / "onnxnas-cores"
_LOOK_AGAIN = 0.005  # seconds
_PATIENCE = 60.0  # seconds; a process that somebody has suspended keeps its locks


class Place:
    """`count` cores, as `ranked_cores` has them, those first that no other place has. `release` gives them back.

    Where too few are free, others' are shared, and `turn` keeps one waiting while another works.
    """

    def __init__(self, count: int, folder: Path = _FOLDER) -> None:
        self._folder = folder
        self._held = ExitStack()
        ranked = ranked_cores()
        own: list[int] = []
        for core in ranked:
            if len(own) < count and self._locked(self._held, f"{core}.place", 0):
                own.append(core)
        shared = [core for core in ranked if core not in own]
        self.cores: Sequence[int] = sorted(own + shared[: count - len(own)])

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While nobody else has a turn on any of the cores; after a minute of waiting, all the same."""
        with ExitStack() as stack:
            for core in self.cores:  # in this order for everybody, so that no two wait for each other
                self._locked(stack, f"{core}.turn", _PATIENCE)
            yield

    def release(self) -> None:
        """Let others have the cores; it may be called again."""
        self._held.close()

    def _locked(self, stack: ExitStack, name: str, patience: float) -> bool:
        """Whether the lock was to be had. One that cannot be, such as another user's, is as one that is taken."""
        try:
            self._folder.mkdir(mode=0o777, exist_ok=True)
            lock = FileLock(self._folder / name, patience, mode=0o666)
            stack.enter_context(lock.acquire(poll_interval=_LOOK_AGAIN))
        except OSError:  # also the end of patience
            return False
        return True

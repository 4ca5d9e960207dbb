"""What a running stage tells whoever watches: lines and progress. It never decides anything."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Called from the thread that runs the stage; must return at once and must not raise."""

    def say(self, text: str) -> None:
        """One line worth keeping."""

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        """`done` of `total` units of this stage; `text` says where it is, shortly."""


class Silent:
    """Tells nobody."""

    def say(self, text: str) -> None:
        return

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        return

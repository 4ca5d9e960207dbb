"""Optuna announces what it does and which of its parts are experimental; a search has its own progress to tell."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning

_LOCK = threading.RLock()  # warning filters and log levels belong to the process, not to a thread


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's announcements and its notices that something is experimental."""
    logger = logging.getLogger("optuna")
    with _LOCK:
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                yield
        finally:
            logger.setLevel(level)

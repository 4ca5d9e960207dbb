"""Shared by the search tests."""

import shutil
from pathlib import Path

import optuna
import pytest

from onnxnas.search import sqlite_url


@pytest.fixture(scope="session")
def empty_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Optuna storage without studies: making its tables is most of the time of a short search."""
    path = tmp_path_factory.mktemp("storage") / "study.db"
    storage = optuna.storages.RDBStorage(sqlite_url(path))
    storage.remove_session()
    storage.engine.dispose()
    return path


@pytest.fixture
def url(tmp_path: Path, empty_storage: Path) -> str:
    """A storage for one test, at `study.db` in its folder."""
    shutil.copy(empty_storage, tmp_path / "study.db")
    return sqlite_url(tmp_path / "study.db")

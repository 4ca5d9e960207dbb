"""A trained super-network is searched again, for something else."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from onnxnas import search
from onnxnas.cli import main
from onnxnas.pipeline import config as configuration
from onnxnas.types import Objective


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def weights(run: Path) -> str:
    return hashlib.sha256((run / "supernet" / "weights.safetensors").read_bytes()).hexdigest()


def test_otherwise_without_training_again(run: Path, tmp_path: Path) -> None:
    body = json.loads((run / "result.json").read_text())
    most = int(0.6 * body["baseline"]["macs"])
    before = weights(run)
    changes = tmp_path / "again.yaml"
    changes.write_text(
        f"objectives: [params, macs]\nsearch: {{algorithm: full, samples: 8, reference_points: [{{macs: {most}}}]}}\n"
    )
    words = ["--objective", "macs", "--limit", f"macs={most}", "--config", str(changes), "--redo"]
    assert main(["search", str(run), *words]) == 0
    assert weights(run) == before
    assert not (run / "result.json").exists()
    kept = configuration.load(run / "config.yaml")
    assert (kept.objectives, kept.limits, kept.search.algorithm) == (("macs",), {"macs": most}, "full")
    assert kept.search.max_trials == 8  # what was not said is as it was
    found = search.read_trials_csv(
        run / "trials.csv",
        [Objective("quality", "%", maximise=True), Objective("macs", "MACs", maximise=False)],
    )
    assert len(found) == 8
    assert main(["finalise", str(run)]) == 0
    body = json.loads((run / "result.json").read_text())
    assert all(entry["macs"] <= most for entry in body["pareto"])


def test_what_cannot_be_changed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(["search", str(run), *words]) != 0
        return " ".join(capsys.readouterr().err.split())

    was = (run / "config.yaml").read_bytes()
    assert "add --redo" in said("--limit", "macs=1000")
    assert "--join helps a search as it is" in said("--join", "--limit", "macs=1000")
    changes = tmp_path / "again.yaml"
    changes.write_text("search: {max_trials: 5}\ntrain: {epochs: 3}\n")
    assert "got train, expected a section 'search', objectives, limits, max_drop" in said(
        "--redo", "--config", str(changes)
    )
    assert "frames" in said("--redo", "--objective", "frames")
    assert (run / "config.yaml").read_bytes() == was
    assert (run / "result.json").exists()

"""Bundles: what is in them, that they run without this package, that damage is seen."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxnas.errors import RunError
from onnxnas.handoff import bundle
from onnxnas.types import Subnet
from tests.handoff.synthetic import SHA, member, result, space, subnet, tiny_model, tiny_reference

X = np.arange(-6, 6, dtype=np.float32).reshape(4, 3) / 3

BLOCKER = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('onnxnas', 'rewriters', 'torch', 'onnx', 'openvino', 'yaml', 'scipy'):
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
import runpy
sys.argv[0] = 'run.py'
runpy.run_path('run.py', run_name='__main__')
"""


def make(
    place: Path,
    *,
    runtime: dict[str, Any] | None = None,
    model: Any = None,
    samples: bool = True,
    **card: Any,
) -> Path:
    metrics = {**member(2), "baseline": result()["baseline"]}
    info = {
        "title": "tiny",
        "source": "tiny.onnx",
        "source_sha256": SHA,
        "subnet": subnet(2),
        "space": space(),
    }
    return bundle.write(
        place,
        tiny_model().SerializeToString() if model is None else model,
        runtime_settings=runtime or {"runtime": "onnxruntime", "threads": 1, "batch": 4, "settings": {}},
        metrics=metrics,
        card=bundle.CardInfo(**{**info, "metric": "top1", "unit": "%", **card}),
        samples=bundle.Samples({"x": X}, {"out/y:0": tiny_reference(X)}) if samples else None,
    )


def run(place: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [sys.executable, "run.py"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [*command, *arguments], cwd=place, env=environment, capture_output=True, text=True, timeout=60
    )


def test_manifest_has_every_file_and_its_hash(tmp_path: Path) -> None:
    place = make(tmp_path / "rank_01")
    names = {path.name for path in place.iterdir()}
    assert names == {
        "model.onnx",
        "runtime.json",
        "run.py",
        "samples.npz",
        "metrics.json",
        "card.md",
        "manifest.json",
    }
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["source_sha256"] == SHA
    assert manifest["files"].keys() == names - {"manifest.json"}
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == hashlib.sha256((place / name).read_bytes()).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["rank_01"]  # nothing temporary is left


def test_run_py_needs_only_the_runtime_and_numpy(tmp_path: Path) -> None:
    place = make(tmp_path / "b")
    done = run(place, "--output", "y.npz", code=BLOCKER)
    assert done.returncode == 0, done.stderr
    assert "out/y:0: 4x3 float32" in done.stdout
    with np.load(place / "y.npz") as arrays:
        np.testing.assert_allclose(arrays["out/y:0"], tiny_reference(X), rtol=1e-6)


def test_run_py_takes_inputs_and_times_itself(tmp_path: Path) -> None:
    place = make(
        tmp_path / "b",
        runtime={
            "runtime": "onnxruntime",
            "threads": 1,
            "settings": {
                "graph_optimization_level": "all",
                "execution_mode": "sequential",
                "enable_cpu_mem_arena": False,
                "allow_spinning": False,
                "config": {"session.set_denormal_as_zero": "1"},
            },
        },
        samples=False,
    )
    np.savez(tmp_path / "in.npz", x=X[:2] * 2)
    done = run(
        place,
        "--input",
        str(tmp_path / "in.npz"),
        "--output",
        str(tmp_path / "out.npz"),
        "--benchmark",
        "--repeats",
        "20",
    )
    assert done.returncode == 0, done.stderr
    assert "latency ms: p50 " in done.stdout
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_allclose(arrays["out/y:0"], tiny_reference(X[:2] * 2), rtol=1e-6)
    without = run(place)
    assert without.returncode == 2
    assert "--input" in without.stderr


def test_run_py_refuses_an_option_the_runtime_does_not_know(tmp_path: Path) -> None:
    place = make(tmp_path / "b", runtime={"runtime": "onnxruntime", "settings": {"warp_speed": 9}})
    done = run(place)
    assert done.returncode != 0
    assert "'warp_speed'" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_py_with_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    place = make(
        tmp_path / "b",
        runtime={"runtime": "openvino", "threads": 1, "settings": {"INFERENCE_PRECISION_HINT": "f32"}},
    )
    done = run(place, "--output", "y.npz")
    assert done.returncode == 0, done.stderr
    with np.load(place / "y.npz") as arrays:
        np.testing.assert_allclose(arrays["out/y:0"], tiny_reference(X), rtol=1e-5)


@pytest.mark.slow
def test_run_py_in_an_environment_with_only_onnxruntime_and_numpy(tmp_path: Path, root: Path) -> None:
    import tempfile

    import onnxruntime

    wanted = f"onnxruntime=={onnxruntime.__version__}", f"numpy=={np.__version__}"
    home = Path(tempfile.gettempdir()) / f"onnxnas-test-venv-{os.getuid()}-{'-'.join(wanted)}"
    python = home / "bin" / "python"
    if not (home / "ready").is_file():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-c", root / "constraints.txt", *wanted], check=True
        )
        (home / "ready").touch()
    place = make(tmp_path / "b")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    absent = subprocess.run([python, "-c", "import onnx"], env=environment, capture_output=True, check=False)
    assert absent.returncode == 1
    done = subprocess.run(
        [python, "run.py", "--output", "y.npz", "--benchmark", "--repeats", "5"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(place / "y.npz") as arrays:
        np.testing.assert_allclose(arrays["out/y:0"], tiny_reference(X), rtol=1e-6)


def test_metrics_that_json_cannot_say_become_null(tmp_path: Path) -> None:
    place = bundle.write(
        tmp_path / "b",
        b"x",
        runtime_settings={"runtime": "onnxruntime"},
        metrics={"quality": float("nan"), "latency_ms": {"p50": np.float32(1.5)}},
        card=bundle.CardInfo("t", "m.onnx", SHA, Subnet()),
    )
    body = json.loads((place / "metrics.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert body["quality"] is None
    assert body["latency_ms"]["p50"] == 1.5


def test_an_earlier_bundle_is_replaced_but_nothing_else(tmp_path: Path) -> None:
    place = make(tmp_path / "b")
    (place / "stale").write_text("from before")
    make(tmp_path / "b")
    assert not (place / "stale").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("text")
    with pytest.raises(RunError, match="is not a bundle"):
        make(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_failure_leaves_the_old_bundle_and_nothing_half_made(tmp_path: Path) -> None:
    place = make(tmp_path / "b")
    before = (place / "manifest.json").read_bytes()
    with pytest.raises(TypeError):
        make(tmp_path / "b", runtime={"runtime": "onnxruntime", "environment": {"X": object()}})
    assert (place / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_model_proto_is_written_too(tmp_path: Path) -> None:
    place = make(tmp_path / "b", model=tiny_model())
    assert onnx.load(str(place / "model.onnx")).graph.node[0].op_type == "Mul"

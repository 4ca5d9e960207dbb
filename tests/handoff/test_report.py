"""The report: whole, offline, safe with hostile names, and made of whatever a run has left behind."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onnxnas.errors import RunError
from onnxnas.handoff import report
from onnxnas.handoff.figures import all_figures, kept, progress, trade_off
from onnxnas.handoff.rundir import read
from tests.handoff.synthetic import member, write_run

EVIL = "</script><script>alert('pwned')</script><img src=http://evil.example/x onerror=alert(1)>"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run")


def test_one_offline_file_with_everything(run: Path) -> None:
    target = report.write(run)
    html = target.read_text(encoding="utf-8")
    page = Page(html)
    assert target == run / "report.html"
    assert target.stat().st_size < 6_000_000
    for tag, attributes in page.tags:
        assert not {"src", "srcset"} & attributes.keys(), tag
        assert tag not in ("link", "iframe", "object", "base", "img"), tag
        assert not str(attributes.get("href", "")).startswith("http")
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert html.count("Plotly.newPlot(") >= 5
    for heading in (
        "Result",
        "Quality and latency",
        "Progress of the search",
        "Training of the super-network",
    ):
        assert heading in page.text
    best = member(2)
    assert f"{best['quality']:.2f}" in page.text
    assert "1.90x as fast (1.87 to 1.93)" in page.text
    assert "the original model was trained on it" in page.text
    assert not list(run.glob(".report.*"))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    html = report.write(write_run(tmp_path / "run", hostile=EVIL)).read_text(encoding="utf-8")
    page = Page(html)
    assert "alert('pwned')" in page.text  # shown, not run
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "<script>alert" not in html
    assert "</script><script>alert" not in html


def test_figures_hold_the_values_of_the_files(run: Path) -> None:
    files = read(run)
    figure = trade_off(files, "latency_ms", "%")
    assert figure is not None
    traces = {trace.name: trace for trace in figure.data}
    assert len(traces["trials"].x) == sum(trial.status == "ok" for trial in files.trials) == 113
    assert list(traces["finalists"].y) == [member(i)["quality"] for i in (1, 2, 3, 4)]
    assert traces["finalists"].error_x.array[0] == pytest.approx(0.02, abs=1e-6)
    assert tuple(traces["original"].y) == (member(0)["quality"],)
    heat = kept(files)
    assert heat is not None
    labels = list(heat.layout.yaxis.ticktext)
    row = labels.index("width stage0.0.conv1")
    assert list(heat.data[0].z[row]) == [0.5, 0.5, 0.5, 0.25]
    moved = progress(files)
    assert moved is not None
    assert list(moved.data[0].y) == sorted(moved.data[0].y)


@pytest.mark.parametrize(
    "absent",
    ["config.yaml", "environment.json", "space.json", "trials.csv", "pareto.csv", "result.json", "supernet"],
)
def test_any_part_may_be_missing(run: Path, tmp_path: Path, absent: str) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    gone = copy / absent
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    files = read(copy)
    titles = [title for title, _, _ in all_figures(files)]
    assert ("Training of the super-network" in titles) == (absent != "supernet")
    assert ("Progress of the search" in titles) == (absent != "trials.csv")
    assert ("What was kept of each layer" in titles) == (absent != "space.json")
    assert len(report.render(files)) > 1000
    assert files.problems == []


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: m.onnx\n")
    html = report.write(tmp_path).read_text(encoding="utf-8")
    assert "no final measurements yet" in html
    assert len(html) < 20_000  # no drawing library for no drawings


def test_damage_is_told(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "result.json").write_text('{"baseline": ')
    with (copy / "trials.csv").open("a") as stream:
        stream.write("not a number,ok,1,,1,2\n")
    with (copy / "supernet" / "log.jsonl").open("a") as stream:
        stream.write('{"epoch": 9, "st')  # torn by a kill: no damage
    files = read(copy)
    assert len(files.problems) == 2
    text = Page(report.render(files)).text
    assert re.search(r"result.json cannot be read", text)
    assert re.search(r"trials.csv line 122 cannot be read", text)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run is here"):
        report.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_faster_is_not_sold(tmp_path: Path) -> None:
    import json

    run = write_run(tmp_path / "run", trials=5)
    body = json.loads((run / "result.json").read_text())
    body["pareto"] = [body["best"]]
    body["best"]["speedup"] = {"value": 1.02, "lo": 0.97, "hi": 1.07}
    (run / "result.json").write_text(json.dumps(body))
    (run / "pareto.csv").unlink()
    text = Page(report.render(read(run))).text
    assert "not measurably faster (0.97 to 1.07)" in text
    assert "not faster" in text

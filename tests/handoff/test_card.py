"""The card says what was changed and what was measured; no name from a file gets out of its cell."""

from __future__ import annotations

from onnxnas.handoff.card import CardInfo, render
from onnxnas.types import Subnet
from tests.handoff.synthetic import SHA, member, result, space, subnet

RUNTIME = {"runtime": "onnxruntime", "version": "1.31.1", "threads": 1, "batch": 1}


def card(level: int = 2, **more: object) -> CardInfo:
    body = {"title": "t", "source": "m.onnx", "source_sha256": SHA, "subnet": subnet(level), "space": space()}
    return CardInfo(**{**body, "metric": "top1", "unit": "%", **more})  # type: ignore[arg-type]


def test_says_what_was_changed() -> None:
    text = render(card(2), {**member(2), "baseline": result()["baseline"]}, RUNTIME)
    assert "2 of 6 blocks skipped" in text
    # groups 0..5 are halved; 2..5 lie in the skipped blocks b1 and b2
    assert "2 of 10 width groups narrowed" in text
    assert "| g0 | stage0.0.conv1 | 16 | 8 | 50% |" in text
    assert "| k0 | stage0.0.conv1 | 5x5 | 3x3 |" in text
    assert SHA in text
    assert "| top1 % | 91.70 | 90.64 |" in text
    assert "1.900 (1.880 to 1.920)" in text
    assert "40,600,000" in text
    assert "not measurably faster" not in text


def test_does_not_sell_what_is_not_faster() -> None:
    slow = {"quality": 90.0, "speedup": {"value": 1.01, "lo": 0.99, "hi": 1.03}}
    assert "**not measurably faster**" in render(card(), slow, RUNTIME)


def test_the_original_structure() -> None:
    text = render(card(subnet=Subnet()), {"quality": 91.7}, RUNTIME)
    assert "Nothing: the structure is the original one." in text
    assert "latency p50" not in text


def test_names_stay_in_their_cells() -> None:
    body = space()
    body["groups"][0]["name"] = "a | b\n<script>alert(1)</script> [x](http://e)"
    text = render(card(2, space=body, title="<img src=x>", notes=["a\n# heading"]), {}, RUNTIME)
    assert "<script>" not in text
    assert "<img" not in text
    assert "[x](" not in text
    assert "\n# heading" not in text
    row = next(line for line in text.splitlines() if line.startswith("| g0 "))
    assert row.replace("\\|", "").count("|") == 6

"""What a sub-network kept, on a space small enough to say by hand."""

from __future__ import annotations

from onnxnas.handoff.changes import changes
from onnxnas.types import Subnet
from tests.handoff.synthetic import space


def test_widths_and_kernels_of_a_skipped_block_are_gone() -> None:
    found = changes(space(), Subnet(frozenset({"b1"}), {"g0": 8, "g2": 4}, {"k0": (3, 3), "k1": (3, 3)}))
    assert [block.id for block in found.skipped] == ["b1"]
    widths = {group.id: group for group in found.widths}
    assert (widths["g0"].kept, widths["g0"].fraction) == (8, 0.5)
    assert widths["g2"].gone  # made by stage0.1.conv1, in b1
    assert widths["g2"].fraction == 0.0
    assert widths["g9"].fraction == 1.0
    assert [group.id for group in found.narrowed] == ["g0"]
    assert [kernel.id for kernel in found.cropped] == ["k0"]


def test_a_group_that_also_something_else_makes_stays() -> None:
    body = space()
    body["groups"][2]["producers"] = ["stage0.1.conv1", "stem"]
    found = changes(body, Subnet(frozenset({"b1"})))
    assert not next(group for group in found.widths if group.id == "g2").gone


def test_no_space_no_changes() -> None:
    found = changes({}, Subnet(frozenset({"b1"})))
    assert found.blocks == found.widths == found.kernels == ()

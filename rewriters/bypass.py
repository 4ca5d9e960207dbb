"""Bypass: every reader of tensor `exit` reads tensor `entry` instead (elastic depth).

Chains resolve to their first entry: bypassing a->b and b->c lets the readers of c read a. A graph output
keeps its name: the entry takes it over, or an Identity carries it where the entry is itself an input, an
initializer or another output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_graphsurgeon as gs

from rewriters.base import Refusal
from rewriters.edits import Bypass
from rewriters.surgery import Surgery


def bypass(surgery: Surgery, edits: Sequence[Bypass]) -> list[str] | Refusal:
    """Perform bypasses. Refused: unknown tensors, an exit bypassed twice or that no node makes, a circle."""
    entries: dict[str, str] = {}
    for edit in edits:
        for name in (edit.entry, edit.exit):
            if surgery.tensor(name) is None:
                return Refusal(f"bypass from '{edit.entry}' to '{edit.exit}': no tensor '{name}'", name)
        if not surgery.tensor(edit.exit).inputs:
            return Refusal(f"bypass to '{edit.exit}': no node makes it", edit.exit)
        if entries.setdefault(edit.exit, edit.entry) != edit.entry:
            return Refusal(f"'{edit.exit}' is bypassed twice", surgery.tensor(edit.exit).inputs[0].name)
    for exit_name in entries:
        entry_name, seen = entries[exit_name], {exit_name}
        while entry_name in entries:
            if entry_name in seen:
                return Refusal(f"bypasses form a circle through '{entry_name}'", entry_name)
            seen.add(entry_name)
            entry_name = entries[entry_name]
        entries[exit_name] = entry_name
    for exit_name, entry_name in entries.items():
        _join(surgery, surgery.tensor(entry_name), surgery.tensor(exit_name))
    return [f"bypassed '{e.exit}' with '{e.entry}'" for e in edits]


def _join(surgery: Surgery, entry: Any, exit: Any) -> None:
    outputs: list[Any] = surgery.graph.outputs
    for reader in {id(n): n for n in exit.outputs}.values():
        for index, tensor in enumerate(reader.inputs):
            if tensor is exit:
                reader.inputs[index] = entry
    if not any(t is exit for t in outputs):
        return
    name = exit.name
    plain = isinstance(entry, gs.Variable) and entry.inputs
    if plain and not any(t is entry for t in outputs):
        exit.name, entry.name = surgery.fresh(f"{name}_bypassed"), name
        entry.dtype, entry.shape = exit.dtype, exit.shape
        surgery.graph.outputs = [entry if t is exit else t for t in outputs]
        return
    exit.inputs[0].outputs = [
        gs.Variable(surgery.fresh(f"{name}_bypassed")) if t is exit else t for t in exit.inputs[0].outputs
    ]
    surgery.graph.nodes.append(gs.Node("Identity", surgery.fresh(f"{name}_identity"), {}, [entry], [exit]))

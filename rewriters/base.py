"""What a rewriter returns, and the contract it keeps.

A rewriter is told what to do, never decides. It works on an open `Surgery` and answers with the sentence
of what it did, or with a `Refusal`: a value with the reason and the culprit node. After a refusal the
surgery is thrown away, so a rewriter may stop half-way; the caller's model is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import onnx

from rewriters.parts import Parts
from rewriters.surgery import Surgery

E_contra = TypeVar("E_contra", contravariant=True)


@dataclass(frozen=True)
class Refusal:
    """Why an edit cannot be made, and the node (or tensor, where no node is to blame) it failed at."""

    reason: str
    node: str


@dataclass(frozen=True, eq=False)
class Rewritten:
    """The new model in its parts, and one sentence for each thing done."""

    parts: Parts
    done: tuple[str, ...]

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The new model as one protobuf, weights copied into it."""
        return self.parts.proto()


class Rewriter(Protocol[E_contra]):
    """Performs the edits of one kind.

    Contract:
    - `edits` are all of one class and refer to the model before any edit; `surgery.node` and
      `surgery.tensor` resolve names of that model, whatever has been rewired since.
    - Only the surgery's graph may be changed, and only in memory that it owns: arrays and attribute values
      taken from it are replaced, never written into. Nothing of the graph is held on to.
    - Returns one sentence for each edit, in order; or a `Refusal`, never an exception, for anything that
      the model or the edit is to blame for.
    - Node and tensor names that stay keep their meaning; new names come from `surgery.fresh`.
    """

    def __call__(self, surgery: Surgery, edits: Sequence[E_contra]) -> list[str] | Refusal: ...


def perform(rewriter: Rewriter[Any], surgery: Surgery, edits: Sequence[Any]) -> list[str] | Refusal:
    """Run `rewriter` and hold it to its contract: inputs and outputs kept, one sentence for each edit.

    Raises:
        AssertionError: the rewriter broke the contract (a defect of the rewriter, not of the model).
    """
    if not edits:
        return []
    before = ([t.name for t in surgery.graph.inputs], [t.name for t in surgery.graph.outputs])
    result = rewriter(surgery, edits)
    if isinstance(result, Refusal):
        return result
    after = ([t.name for t in surgery.graph.inputs], [t.name for t in surgery.graph.outputs])
    if before != after:
        raise AssertionError(f"{rewriter} changed the graph's inputs or outputs: {before} became {after}")
    if len(result) != len(edits):
        raise AssertionError(f"{rewriter} reported {len(result)} of {len(edits)} edits")
    return result

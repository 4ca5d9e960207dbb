"""How the time budget is shared among the stages.

    stage      share    what it buys
    train      0.20     epochs of the super-network
    search     0.12     evaluated candidates
    finalise   0.68     epochs of fine-tuning, the long measurement

A stage gets its share of what is left, so time saved or lost by one stage is shared by the later ones. What it
buys is decided once, from the speed measured at the start of the stage, and recorded; see `RunDirectory.decide`.
Should the machine then become slower than `PATIENCE` times that, the stage ends by the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxnas.pipeline.line import Line

PATIENCE = 1.1
LEAST = 0.5  # of its nominal share, for a stage whose predecessors took too long
SHARES = {"prepare": 0.0, "train": 0.20, "search": 0.12, "finalise": 0.68}


def allowance(line: Line, stage: str) -> float | None:
    """Seconds that `stage` may take, by the budget and what earlier stages took; None without a budget."""
    budget = line.config.budget
    if budget is None:
        return None
    names = list(SHARES)
    earlier, later = names[: names.index(stage)], names[names.index(stage) :]
    spent = sum(float((line.run.marker(name) or {}).get("seconds", 0.0)) for name in earlier)
    share = max(0.0, budget - spent) * SHARES[stage] / sum(SHARES[name] for name in later)
    return max(share, LEAST * SHARES[stage] * budget)

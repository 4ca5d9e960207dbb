"""The loop on the search space of a real graph: costs are those of the space."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnas.search import SearchSettings, Space, pareto, run
from onnxnas.space import SearchSpace
from onnxnas.testing.algorithms import residual_space
from onnxnas.types import Objective, Subnet, Trial

OBJECTIVES = (Objective("params", "", maximise=True), Objective("macs", "", maximise=False))


@dataclass
class CostEvaluator:
    space: SearchSpace

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        self.space.validate(subnet)
        cost = self.space.cost(subnet)
        return Trial(number, subnet, "ok", {"params": cost.params, "macs": cost.macs})


def test_search_space_is_one_that_the_search_takes(url: str) -> None:
    space: Space = residual_space()
    evaluator = CostEvaluator(residual_space())
    trials = run(space, evaluator, OBJECTIVES, SearchSettings(population=8, max_trials=24), url, seed=1)
    assert len({t.subnet.key() for t in trials}) == 24
    front = pareto(trials, OBJECTIVES)
    assert front[0].subnet == Subnet()
    assert front[-1].values["macs"] == evaluator.space.cost(evaluator.space.minimal()).macs
    assert run(space, evaluator, OBJECTIVES, SearchSettings(population=8, max_trials=24), url, 1) == trials

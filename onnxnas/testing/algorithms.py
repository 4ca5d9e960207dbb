"""Conformance kit for search algorithms. Subclass it in a test module, name the algorithm, run pytest:

    class TestMine(AlgorithmConformance):
        algorithm = "my_package.search:MyAlgorithm"

Every test says in its docstring which sentence of the `Algorithm` contract it checks. The space is that of a
tiny residual network; quality and cost are formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from onnxnas import graph
from onnxnas.analysis import analyse
from onnxnas.search.algorithm import Algorithm, make_algorithm
from onnxnas.search.problem import Genotype, Problem
from onnxnas.search.settings import SearchSettings
from onnxnas.space import SearchSpace, build
from onnxnas.testing.graphs import resnet
from onnxnas.types import Objective

OBJECTIVES = (Objective("quality", "%", maximise=True), Objective("cost", "", maximise=False))


@cache
def residual_space() -> SearchSpace:
    """The search space of a small residual network."""
    return build(analyse(graph.load(resnet())))


class AlgorithmConformance:
    """What every `Algorithm` must do. Override `algorithm`; override `settings` for more than its name."""

    algorithm = ""

    def settings(self) -> SearchSettings:
        return SearchSettings(algorithm=self.algorithm, population=8)

    def space(self) -> SearchSpace:
        return residual_space()

    def tiny_space(self) -> SearchSpace:
        """At most a hundred genotypes."""
        space = self.space()
        fewest = {g.id: [g.choices[-1]] if i == 0 else [] for i, g in enumerate(space.groups)}
        return space.restricted({**fewest, **{k.id: [] for k in space.kernels}})

    def make(self, problem: Problem, seed: int = 0) -> Algorithm:
        return make_algorithm(problem, self.settings(), np.random.default_rng(seed))

    def judge(self, problem: Problem, genotypes: Sequence[Genotype]) -> NDArray[np.float64]:
        """Objectives (n x 2), minimised: quality falls faster and faster as cost goes down."""
        top = np.maximum(problem.upper, 1)
        small = np.array([(problem.encode(problem.subnet(g)) / top).tolist() for g in genotypes])
        weight = 1 + np.arange(small.shape[1]) % 3
        return np.stack([-100 + (weight * small**2).sum(axis=1), (1 - 0.9 * small).sum(axis=1)], axis=1)

    def drive(self, problem: Problem, n: int, *, seed: int = 0, portion: int = 8) -> list[Genotype]:
        """The first n candidates, asked and told `portion` at a time."""
        algorithm = self.make(problem, seed)
        asked: list[Genotype] = []
        while len(asked) < n and (batch := algorithm.ask(min(portion, n - len(asked)))):
            asked += batch
            algorithm.tell(batch, self.judge(problem, batch))
        return asked

    def test_asks_at_most_n_repaired_genotypes(self) -> None:
        """`ask(n)` returns between 1 and n genotypes, repaired."""
        problem = Problem(self.space(), OBJECTIVES)
        algorithm = self.make(problem)
        for n in (1, 3, 8):
            batch = algorithm.ask(n)
            assert 1 <= len(batch) <= n
            for genotype in batch:
                assert genotype.shape == problem.upper.shape
                assert ((genotype >= 0) & (genotype <= problem.upper)).all()
                np.testing.assert_array_equal(problem.repair(genotype), genotype)
            algorithm.tell(batch, self.judge(problem, batch))

    def test_no_candidate_twice(self) -> None:
        """No two of the whole search are equal by `Problem.key`."""
        problem = Problem(self.space(), OBJECTIVES)
        asked = self.drive(problem, 60)
        assert len(asked) == 60
        assert len({problem.key(g) for g in asked}) == 60

    def test_ends_when_nothing_is_left(self) -> None:
        """`ask` returns none when nothing new is left to propose."""
        problem = Problem(self.tiny_space(), OBJECTIVES)
        possible = {
            problem.key(problem.repair(np.array(index, dtype=np.int64)))
            for index in np.ndindex(*(problem.upper + 1).tolist())
        }
        asked = self.drive(problem, len(possible) + 50)
        assert {problem.key(g) for g in asked} <= possible
        assert len(asked) >= 0.9 * len(possible)

    def test_the_sequence_follows_from_the_seed(self) -> None:
        """It depends on problem, settings, generator and what was told; not on the n of `ask`."""
        problem = Problem(self.space(), OBJECTIVES)
        one = self.drive(problem, 40, seed=3)
        for portion in (1, 5):
            other = self.drive(Problem(self.space(), OBJECTIVES), 40, seed=3, portion=portion)
            np.testing.assert_array_equal(np.array(other), np.array(one))

    def test_no_global_random_state(self) -> None:
        """No global random state is read or changed."""
        problem = Problem(self.space(), OBJECTIVES)
        one = self.drive(problem, 24)
        np.random.seed(7)
        before = np.random.get_state(legacy=False)["state"]["key"].copy()
        np.testing.assert_array_equal(np.array(self.drive(problem, 24)), np.array(one))
        after = np.random.get_state(legacy=False)["state"]["key"]
        np.testing.assert_array_equal(before, after)

    def test_failures_are_survived(self) -> None:
        """A row of +inf says that the candidate failed; all of them may."""
        problem = Problem(self.space(), OBJECTIVES)
        algorithm = self.make(problem)
        for generation in range(5):
            batch = algorithm.ask(8)
            assert batch
            rows = self.judge(problem, batch)
            rows[:: 1 if generation < 2 else 3] = np.inf
            algorithm.tell(batch, rows)

    def test_is_told_what_it_never_asked_for(self) -> None:
        """Candidates from another study may be told, and are not proposed later."""
        problem = Problem(self.space(), OBJECTIVES)
        known = self.drive(problem, 30, seed=1)
        algorithm = self.make(problem, seed=1)
        algorithm.tell(known, self.judge(problem, known))
        asked: list[Genotype] = []
        while len(asked) < 30 and (batch := algorithm.ask(8)):
            asked += batch
            algorithm.tell(batch, self.judge(problem, batch))
        assert len(asked) >= 30
        assert not {problem.key(g) for g in known} & {problem.key(g) for g in asked}

    def test_arrays_given_are_left_alone(self) -> None:
        """It never changes an array given to it."""
        problem = Problem(self.space(), OBJECTIVES)
        algorithm = self.make(problem)
        for _ in range(3):
            batch = algorithm.ask(8)
            rows = self.judge(problem, batch)
            copies = [g.copy() for g in batch], rows.copy()
            algorithm.tell(batch, rows)
            algorithm_asked = algorithm.ask(1)
            algorithm.tell(algorithm_asked, self.judge(problem, algorithm_asked))
            np.testing.assert_array_equal(np.array(batch), np.array(copies[0]))
            np.testing.assert_array_equal(rows, copies[1])

"""What every algorithm must do, and that NSGA-II is worth its name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxnas.errors import ConfigError
from onnxnas.search import Frame, Genotype, Problem, SearchSettings, hypervolume, make_algorithm
from onnxnas.search.operators import crossover, diagonals, mutate, spread_sample
from onnxnas.testing.algorithms import AlgorithmConformance
from onnxnas.types import Objective
from tests.search.search_fakes import NETWORK, ZDT, FakeSpace, NetworkEvaluator, ZdtEvaluator

BOTH = pytest.mark.parametrize("name", ["nsga2", "random"])


def drive(name: str, space: FakeSpace, n: int, seed: int, ask: int = 8, **more: object) -> list[Genotype]:
    """The first n candidates on ZDT, asked `ask` at a time."""
    problem = Problem(space, ZDT)
    settings = SearchSettings(algorithm=name, population=8, **more)
    algorithm = make_algorithm(problem, settings, np.random.default_rng(seed))
    evaluator = ZdtEvaluator(space)
    asked: list[Genotype] = []
    while len(asked) < n and (batch := algorithm.ask(min(ask, n - len(asked)))):
        asked += batch
        algorithm.tell(batch, objectives(problem, evaluator, batch))
    return asked


def objectives(problem: Problem, evaluator: ZdtEvaluator, batch: Sequence[Genotype]) -> NDArray[np.float64]:
    return np.array([problem.minimised(evaluator.values(problem.subnet(g))) for g in batch])


@BOTH
def test_no_candidate_twice_by_effective_genotype(name: str) -> None:
    space = FakeSpace(blocks=4, free=1, steps=3)
    problem = Problem(space, ZDT)
    asked = drive(name, space, 150, seed=1)
    assert len(asked) == 150
    assert len({problem.key(g) for g in asked}) == 150
    for g in asked:
        np.testing.assert_array_equal(problem.repair(g), g)


@BOTH
def test_a_small_space_is_found_whole_and_then_nothing(name: str) -> None:
    # effective candidates: 3 ways to (not) skip 2 blocks; a skipped block's width does not count
    space = FakeSpace(blocks=2, free=1, steps=2)
    asked = drive(name, space, 1000, seed=2)
    assert len(asked) == (2 * 2 + 2 + 2) * 2


def test_the_first_generation_has_the_corners_and_diagonals() -> None:
    space = FakeSpace(blocks=3, free=3, steps=5)
    first = drive("nsga2", space, 8, seed=0)
    problem = Problem(space, ZDT)
    np.testing.assert_array_equal(first[0], problem.encode(space.maximal()))
    np.testing.assert_array_equal(first[1], problem.encode(space.minimal()))
    assert [0, 0, 0, 2, 2, 2, 2, 2, 2] in [g.tolist() for g in first]


def test_failures_never_become_parents() -> None:
    space = FakeSpace(blocks=0, free=12, steps=9)
    problem = Problem(space, ZDT)
    algorithm = make_algorithm(problem, SearchSettings(population=12), np.random.default_rng(5))
    evaluator = ZdtEvaluator(space)
    shares = []
    for _ in range(12):
        batch = algorithm.ask(12)
        rows = objectives(problem, evaluator, batch)
        fails = np.array([g[3] < 4 for g in batch])
        rows[fails] = np.inf
        algorithm.tell(batch, rows)
        shares.append(fails.mean())
    assert shares[0] >= 0.3
    assert np.mean(shares[-4:]) < 0.1


def test_limits_pull_the_search_inside() -> None:
    space = FakeSpace(blocks=6, free=4, steps=8)
    limited = (Objective("quality", "%", maximise=True, limit=94.0), NETWORK[1])
    inside = {}
    for objectives_ in (NETWORK, limited):
        problem = Problem(space, objectives_)
        algorithm = make_algorithm(problem, SearchSettings(population=12), np.random.default_rng(6))
        evaluator = NetworkEvaluator(space)
        last = []
        for generation in range(12):
            batch = algorithm.ask(12)
            values = [evaluator.evaluate(problem.subnet(g), 0).values for g in batch]
            algorithm.tell(batch, np.array([problem.minimised(v) for v in values]))
            if generation >= 6:
                last += [v["quality"] >= 94.0 for v in values]
        inside[objectives_] = np.mean(last)
    assert inside[limited] > inside[NETWORK] + 0.2


def test_candidates_told_from_elsewhere_are_not_proposed_and_help() -> None:
    space = FakeSpace(blocks=0, free=10, steps=10)
    problem = Problem(space, ZDT)
    evaluator = ZdtEvaluator(space)
    known = [np.array([i, *[6] * 9]) for i in range(10)]  # the true front
    algorithm = make_algorithm(problem, SearchSettings(population=8), np.random.default_rng(7))
    algorithm.tell(known, objectives(problem, evaluator, known))
    batch = algorithm.ask(8)
    algorithm.tell(batch, objectives(problem, evaluator, batch))
    children = algorithm.ask(8)
    keys = {problem.key(g) for g in known}
    assert not keys & {problem.key(g) for g in batch + children}
    # children of the true front stay near it: unrelated ones are about 3 steps away per dimension
    distance = np.abs(np.array(children)[:, 1:] - 6).mean()
    assert distance < 1.0


def test_ask_waits_for_what_is_not_told() -> None:
    space = FakeSpace(blocks=2, free=4, steps=4)
    problem = Problem(space, ZDT)
    algorithm = make_algorithm(problem, SearchSettings(population=6), np.random.default_rng(8))
    batch = algorithm.ask(100)
    assert len(batch) == 6
    assert algorithm.ask(1) == []
    algorithm.tell(batch[:5], objectives(problem, ZdtEvaluator(space), batch[:5]))
    assert algorithm.ask(1) == []
    algorithm.tell(batch[5:], objectives(problem, ZdtEvaluator(space), batch[5:]))
    assert len(algorithm.ask(1)) == 1


def test_nsga2_beats_random_search_at_equal_budget() -> None:
    space = FakeSpace(blocks=0, free=20, steps=10)
    problem = Problem(space, ZDT)
    evaluator = ZdtEvaluator(space)
    frame = Frame((0.0, 0.0), (1.0, 6.0))
    # of the true front, by its formula
    true = np.array([[i / 9, 1 - np.sqrt(i / 9)] for i in range(10)])
    reached = {
        name: [
            hypervolume(objectives(problem, evaluator, drive(name, space, 160, seed)), frame)
            for seed in range(4)
        ]
        for name in ("nsga2", "random")
    }
    gap = {name: hypervolume(true, frame) - np.mean(found) for name, found in reached.items()}
    assert 0 < gap["nsga2"] < 0.5 * gap["random"]


def test_mutation_goes_to_neighbours_first() -> None:
    rng = np.random.default_rng(9)
    upper = np.array([8, 1, 0, 3])
    ordered = np.array([True, False, True, False])
    start = np.array([4, 1, 0, 2])
    children = np.array([mutate(start, upper, ordered, rng) for _ in range(4000)])
    assert (children >= 0).all()
    assert (children <= upper).all()
    assert (children != start).any(axis=1).all()
    steps = np.abs(children[:, 0] - 4)
    moved = steps[steps > 0]
    assert np.mean(moved == 1) == pytest.approx(0.6, abs=0.05)
    assert np.mean(moved == 2) == pytest.approx(0.24, abs=0.05)
    # a category changes to each other value alike
    others = children[children[:, 3] != 2, 3]
    assert np.bincount(others, minlength=4)[[0, 1, 3]] / len(others) == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("value", [0, 1, 2, 3])
def test_mutation_always_moves_within_a_short_range(value: int) -> None:
    rng = np.random.default_rng(10)
    for _ in range(200):
        child = mutate(np.array([value]), np.array([3]), np.array([True]), rng)
        assert 0 <= child[0] <= 3
        assert child[0] != value


def test_mutation_without_any_choice_changes_nothing() -> None:
    child = mutate(np.zeros(3, int), np.zeros(3, int), np.ones(3, bool), np.random.default_rng(0))
    assert child.tolist() == [0, 0, 0]


def test_crossover_mixes_categories_and_may_land_between_ordered_ones() -> None:
    rng = np.random.default_rng(11)
    a, b = np.array([0, 0, 5]), np.array([6, 2, 5])
    children = np.array([crossover(a, b, np.array([True, False, True]), rng) for _ in range(500)])
    assert set(children[:, 0]) == set(range(7))
    assert set(children[:, 1]) == {0, 2}
    assert set(children[:, 2]) == {5}


def test_spread_sample_covers_large_and_small_networks() -> None:
    problem = Problem(FakeSpace(blocks=20, free=20, steps=8), ZDT)
    rng = np.random.default_rng(12)
    sample = np.array([spread_sample(problem, rng) for _ in range(300)])
    assert (sample >= 0).all()
    assert (sample <= problem.upper).all()
    widths = sample[:, 20:].mean(axis=1) / 7
    skipped = sample[:, :20].mean(axis=1)
    # 40 independent uniform draws stay within 0.5 +- 0.15 almost always
    for share in (widths, skipped):
        assert np.quantile(share, 0.1) < 0.25
        assert np.quantile(share, 0.9) > 0.75


def test_diagonals_narrow_everything_alike() -> None:
    problem = Problem(FakeSpace(blocks=2, free=0, steps=9), ZDT)
    assert [g.tolist() for g in diagonals(problem, 3)] == [
        [0, 0, 2, 2],
        [1, 1, 2, 2],
        [0, 0, 4, 4],
        [1, 1, 4, 4],
        [0, 0, 6, 6],
        [1, 1, 6, 6],
    ]


class TestNsga2(AlgorithmConformance):
    algorithm = "nsga2"


class TestRandom(AlgorithmConformance):
    algorithm = "random"


class TestReferencePoints(AlgorithmConformance):
    algorithm = "r-nsga2"


class TestAgeMoea(AlgorithmConformance):
    algorithm = "age-moea"


class TestCTaea(AlgorithmConformance):
    algorithm = "c-taea"


class TestTpe(AlgorithmConformance):
    algorithm = "tpe"


class TestOptunaNsga2(AlgorithmConformance):
    algorithm = "optuna-nsga2"


@pytest.mark.slow  # half a second for each candidate
class TestGp(AlgorithmConformance):
    algorithm = "gp"


def test_gaussian_processes_beat_random_search() -> None:
    found = {}
    for name in ("gp", "random"):
        space = FakeSpace(blocks=0, free=4, steps=7)
        problem = Problem(space, ZDT)
        evaluator = ZdtEvaluator(space)
        rows = objectives(problem, evaluator, drive(name, space, 28, seed=1, ask=1))
        found[name] = hypervolume(rows, Frame((0.0, 0.0), (1.0, 10.0)))
    assert found["gp"] > found["random"] + 0.02


@pytest.mark.parametrize("quality", [93.0, 80.0])
def test_reference_points_say_where_to_search(quality: float) -> None:
    """The members of the front that were found lie closer to the point than those of NSGA-II."""
    away = {}
    for name in ("nsga2", "r-nsga2"):
        space = FakeSpace(blocks=6, free=4, steps=8)
        problem = Problem(space, NETWORK)
        settings = SearchSettings(algorithm=name, population=12, reference_points=({"quality": quality},))
        algorithm = make_algorithm(problem, settings, np.random.default_rng(2))
        evaluator = NetworkEvaluator(space)
        late: list[float] = []
        for generation in range(15):
            batch = algorithm.ask(12)
            values = [evaluator.evaluate(problem.subnet(g), 0).values for g in batch]
            algorithm.tell(batch, np.array([problem.minimised(v) for v in values]))
            late += [abs(v["quality"] - quality) for v in values] if generation >= 8 else []
        away[name] = float(np.median(late))
    assert away["r-nsga2"] < 0.7 * away["nsga2"]


def test_a_reference_point_of_something_else_is_refused() -> None:
    settings = SearchSettings(algorithm="r-nsga2", reference_points=({"speed": 1.0},))
    with pytest.raises(ConfigError, match="'speed' is not an objective of this search; use f1, f2"):
        make_algorithm(Problem(FakeSpace(1, 1, 2), ZDT), settings, np.random.default_rng())


class Own:
    """A user's algorithm: the maximal network, then nothing."""

    def __init__(self, problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> None:
        self._left = [problem.encode(problem.space.maximal())]

    def ask(self, n: int) -> list[Genotype]:
        return [self._left.pop()] if self._left else []

    def tell(self, genotypes: Sequence[Genotype], objectives: NDArray[np.float64]) -> None:
        pass


def test_a_users_own_algorithm_by_name() -> None:
    sys.modules["own_algorithm_module"] = sys.modules[__name__]
    try:
        asked = drive("own_algorithm_module:Own", FakeSpace(2, 2, 3), 10, seed=0)
    finally:
        del sys.modules["own_algorithm_module"]
    assert [g.tolist() for g in asked] == [[0] * 6]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nsga3", "not known: use one of age-moea, c-taea, concurrent, full, gp, nsga2"),
        ("no_such_module:x", "importing no_such_module failed"),
        ("json:no_such_name", "has no 'no_such_name'"),
        ("json:decoder", "not callable"),
        ("builtins:print", "without ask and tell"),
    ],
)
def test_an_algorithm_that_cannot_be_used_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_algorithm(
            Problem(FakeSpace(1, 1, 2), ZDT), SearchSettings(algorithm=name), np.random.default_rng()
        )


def test_pymoo_prints_nothing_when_it_is_not_compiled() -> None:
    code = (
        "import sys; sys.modules['pymoo.functions.compiled.info'] = None\n"
        "import onnxnas.search, onnxnas.search.genetic, pymoo.functions\n"
        "assert not pymoo.functions.is_compiled()\n"
        "pymoo.functions.FunctionLoader.get_instance()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""

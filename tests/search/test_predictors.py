"""Predictors on functions whose values are known, and the search that uses them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxnas.errors import ConfigError
from onnxnas.search import Frame, Genotype, Problem, SearchSettings, hypervolume, make_algorithm
from onnxnas.search.aims import nearest
from onnxnas.search.features import Features
from onnxnas.search.predicted import PredictedSearch
from onnxnas.search.predictors import MANY, PREDICTORS, fitted, make_predictor, score
from onnxnas.testing.algorithms import AlgorithmConformance, residual_space
from tests.search.search_fakes import NETWORK, FakeSpace, NetworkEvaluator


class TestConcurrent(AlgorithmConformance):
    algorithm = "concurrent"


class TestFull(AlgorithmConformance):
    algorithm = "full"

    def settings(self) -> SearchSettings:
        return SearchSettings(algorithm=self.algorithm, population=8, samples=16)


class Mean:
    """The least that a predictor can be."""

    def fit(self, features: np.ndarray, values: np.ndarray) -> None:
        self.value = values.mean()

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.full(len(features), self.value)


def steps(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(features, values): layers whose time goes in steps of 16 channels, plus a smooth part."""
    rng = np.random.default_rng(seed)
    width = rng.integers(1, 65, (n, 6))
    return width.astype(float), (np.ceil(width / 16) * [1, 2, 3, 4, 5, 6]).sum(1) + 0.02 * width.sum(1)


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_predictor_learns(name: str) -> None:
    x, y = steps(300, 0)
    model = fitted(name, x, y)[1]
    fresh, truth = steps(200, 1)
    found = score(model.predict(fresh), truth)
    assert found.spearman > 0.85
    assert found.mape < 10
    again = fitted(name, x, y)[1]
    np.testing.assert_array_equal(again.predict(fresh), model.predict(fresh))


def test_the_best_is_chosen_by_what_it_has_not_seen() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (MANY + 50, 5))
    assert fitted("auto", x[:200], x[:200] @ [1.0, 2, 3, 4, 5])[0] == "gp"
    assert fitted("auto", x, x @ [1.0, 2, 3, 4, 5])[0] == "ridge"
    assert fitted("auto", x, np.sin(4 * x[:, 0]) + x[:, 1] ** 2)[0] in ("svr", "trees")
    assert fitted("trees", x, x[:, 0])[0] == "trees"


def test_score_against_values_by_hand() -> None:
    found = score(np.array([1.1, 2.2, 2.9, 4.0]), np.array([1.0, 2.0, 4.0, 3.0]))
    assert found.mape == pytest.approx(100 * (0.1 + 0.1 + 0.275 + 1 / 3) / 4)
    assert found.spearman == pytest.approx(0.8)
    assert found.kendall == pytest.approx(4 / 6)  # one of six pairs in the wrong order
    assert score(np.ones(3), np.array([1.0, 2, 3])).kendall == 0.0


def test_unknown_and_own_predictors() -> None:
    with pytest.raises(ConfigError, match="'forest' is not known"):
        make_predictor("forest")
    model = make_predictor("tests.search.test_predictors:Mean")
    model.fit(np.zeros((2, 1)), np.array([1.0, 3.0]))
    assert model.predict(np.zeros((3, 1))).tolist() == [2.0, 2.0, 2.0]


def test_features_of_a_real_space() -> None:
    """Equal for equal candidates; the layers' costs add up to what the space says."""
    space = residual_space()
    problem = Problem(space, NETWORK)
    rng = np.random.default_rng(3)
    genotypes = [problem.encode(space.repair(space.random(rng))) for _ in range(20)]
    rows = Features(problem).of(genotypes)
    assert rows.shape[0] == 20
    costs = [space.cost(problem.subnet(g)).macs for g in genotypes]
    np.testing.assert_allclose(rows[:, -1], costs)
    np.testing.assert_allclose(rows[:, -1], [space.profile(problem.subnet(g)).sum() for g in genotypes])
    largest = Features(problem).of([np.zeros_like(problem.upper)])[0]
    assert (largest[: len(problem.upper)] == 1).all()


def searched(
    name: str, n: int, seed: int, points: tuple[dict[str, float], ...] = ()
) -> tuple[np.ndarray, PredictedSearch | None]:
    """The minimised objectives of the first n candidates, measured with 2 % of noise in latency."""
    space = FakeSpace(blocks=6, free=14, steps=8)
    problem = Problem(space, NETWORK)
    settings = SearchSettings(algorithm=name, population=16, reference_points=points)
    algorithm = make_algorithm(problem, settings, np.random.default_rng(seed))
    evaluator, noise = NetworkEvaluator(space), np.random.default_rng(99)
    truth: list[np.ndarray] = []
    while len(truth) < n:
        batch: list[Genotype] = algorithm.ask(min(16, n - len(truth)))
        rows = np.array([problem.minimised(evaluator.evaluate(problem.subnet(g), 0).values) for g in batch])
        truth += list(rows)
        algorithm.tell(batch, rows * [1, 1 + 0.02 * noise.standard_normal()])
    return np.array(truth), algorithm if isinstance(algorithm, PredictedSearch) else None


def test_a_fifth_of_the_measurements() -> None:
    """Against NSGA-II with five times as many, over three seeds."""
    frame = Frame((-95.0, 1.0), (-60.0, 42.0))
    ours = [hypervolume(searched("concurrent", 64, seed)[0], frame) for seed in range(3)]
    theirs = [hypervolume(searched("nsga2", 320, seed)[0], frame) for seed in range(3)]
    assert np.mean(ours) > np.mean(theirs)


def best_within(rows: np.ndarray, latency: float) -> float:
    return float(-rows[rows[:, 1] <= latency, 0].min())


def test_reference_points_are_looked_for_in_one_search() -> None:
    """Two of them: at both, the best is better than without, over four seeds, and many come near."""
    wanted = (12.0, 24.0)
    points = tuple({"latency": latency} for latency in wanted)
    aimed, plain = (
        np.array([searched("concurrent", 56, seed, told)[0] for seed in range(4)]) for told in (points, ())
    )
    for latency in wanted:
        ours, theirs = (np.mean([best_within(rows, latency) for rows in found]) for found in (aimed, plain))
        assert ours > theirs, latency
    ours, theirs = (
        sum(((found[..., 1] > 0.9 * at) & (found[..., 1] <= at)).sum() for at in wanted)
        for found in (aimed, plain)
    )
    assert ours > 1.5 * theirs


def test_nearest_by_hand() -> None:
    rows = np.array([[3.0, 5.0], [1.0, 9.0], [2.0, 6.0], [9.0, 1.0], [2.5, 8.0]])
    assert nearest(rows, np.array([2.6, np.nan]), 4) == [2, 4, 1, 0]  # three reach it, one lacks 0.4
    assert nearest(rows, np.array([np.nan, 0.5]), 2) == [3, 0]  # nobody reaches it


@pytest.mark.parametrize("name", ["concurrent", "full"])
def test_a_reference_point_of_something_else_is_refused(name: str) -> None:
    settings = SearchSettings(algorithm=name, reference_points=({"speed": 1.0},))
    with pytest.raises(ConfigError, match="'speed' is not an objective of this search; use quality, latency"):
        make_algorithm(Problem(FakeSpace(1, 1, 2), NETWORK), settings, np.random.default_rng())


def test_predictions_are_compared_with_what_was_measured() -> None:
    _, algorithm = searched("concurrent", 56, 0)
    assert algorithm is not None
    assert [r.measured for r in algorithm.rounds] == [16 + 8 * i for i in range(len(algorithm.rounds))]
    assert len(algorithm.rounds) >= 4
    last = algorithm.rounds[-1]
    assert all(len(r.scores) == 2 for r in algorithm.rounds)
    assert last.scores[1].spearman > 0.8  # latency
    assert last.scores[1].mape < 20

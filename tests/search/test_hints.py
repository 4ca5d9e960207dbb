"""What is known of an objective without measuring, in the features and in the search."""

from __future__ import annotations

import zlib
from functools import partial

import numpy as np
import pytest

from onnxnas.search import Hint, Problem, SearchSettings, make_algorithm
from onnxnas.search.features import Features
from onnxnas.search.predicted import FIRST_LOOKS, LOOKS, PredictedSearch
from onnxnas.search.predictors import score
from onnxnas.testing.algorithms import residual_space
from onnxnas.types import Objective, Subnet
from tests.search.search_fakes import NETWORK, FakeSpace, NetworkEvaluator

MACS = Objective("macs", "MACs", maximise=False)
RATE = Objective("throughput", "samples/s", maximise=True)


def test_a_hint_needs_a_line_and_no_more() -> None:
    """Twelve candidates tell what a figure is that follows from its hint, and one that an exact hint says."""
    space = residual_space()
    hints = {
        "macs": Hint(lambda s: float(space.cost(s).macs), exact=True),
        "throughput": Hint(lambda s: 1.0 / space.cost(s).macs),
    }
    problem = Problem(space, (MACS, RATE), hints=hints)
    features, rng = Features(problem), np.random.default_rng(0)
    genotypes = [problem.encode(space.repair(space.random(rng))) for _ in range(72)]
    rows = features.of(genotypes)
    macs = np.array([space.cost(problem.subnet(g)).macs for g in genotypes], np.float64)
    rate = -(7.0 + 3e9 / macs)  # as it is minimised
    name, exact = features.fitted(0, rows[:12], np.zeros(12))
    assert name == "exact"
    np.testing.assert_array_equal(exact.predict(rows), macs)
    name, model = features.fitted(1, rows[:12], rate[:12])
    assert name == "transferred gp"
    np.testing.assert_allclose(model.predict(rows[12:]), rate[12:], rtol=0.02)


def test_other_objectives_do_not_see_it() -> None:
    """The predictor of quality is the one that there is without hints, to the last bit."""
    space = residual_space()
    rng = np.random.default_rng(1)
    plain = Problem(space, NETWORK)
    hinted = Problem(space, NETWORK, hints={"latency": Hint(lambda s: float(space.cost(s).macs))})
    genotypes = [plain.encode(space.repair(space.random(rng))) for _ in range(60)]
    values = np.random.default_rng(2).standard_normal(40)
    said = []
    for problem in (plain, hinted):
        features = Features(problem)
        rows = features.of(genotypes)
        said.append(features.fitted(0, rows[:40], values)[1].predict(rows[40:]))
    np.testing.assert_array_equal(*said)


def line_of(evaluator: NetworkEvaluator, subnet: Subnet) -> float:
    return 3.0 * float(evaluator.evaluate(subnet, 0).values["latency"]) + 5.0


def test_a_search_with_hints_predicts_from_the_first_round() -> None:
    """Latency with 2 % of noise, known by its layers: better ranked after 16 candidates than without after 40."""
    ranks = {}
    for hinted in (False, True):
        space = FakeSpace(blocks=6, free=14, steps=8)
        evaluator, noise = NetworkEvaluator(space), np.random.default_rng(99)
        hints = {"latency": Hint(partial(line_of, evaluator))} if hinted else None
        problem = Problem(space, NETWORK, hints=hints)
        settings = SearchSettings(algorithm="concurrent", population=24)
        algorithm = make_algorithm(problem, settings, np.random.default_rng(0))
        assert isinstance(algorithm, PredictedSearch)
        while len(algorithm.rounds) < 3:
            batch = algorithm.ask(8)
            truth = [problem.minimised(evaluator.evaluate(problem.subnet(g), 0).values) for g in batch]
            algorithm.tell(batch, np.array(truth) * [1, 1 + 0.02 * noise.standard_normal()])
        fresh = [problem.encode(space.random(noise)) for _ in range(80)]
        rows = algorithm._features.of(fresh)
        known = list(algorithm._known.values())[: 16 if hinted else 40]
        _, model = algorithm._features.fitted(
            1, algorithm._features.of([g for g, _ in known]), np.array([row[1] for _, row in known])
        )
        truth = [evaluator.evaluate(problem.subnet(g), 0).values["latency"] for g in fresh]
        ranks[hinted] = score(model.predict(rows), np.array(truth)).kendall
    assert ranks[True] > 0.95 > ranks[False]


class Asked:
    """A costly hint of quality: the truth, bent and with noise of its own, and every sub-network it was asked of."""

    def __init__(self, evaluator: NetworkEvaluator, broken: bool = False) -> None:
        self.evaluator, self.broken = evaluator, broken
        self.subnets: list[Subnet] = []

    def __call__(self, subnet: Subnet) -> float:
        self.subnets.append(subnet)
        quality = self.evaluator.evaluate(subnet, 0).values["quality"]
        noise = np.random.default_rng(zlib.crc32(subnet.key().encode())).standard_normal()
        return float("nan") if self.broken else -0.1 * (95.0 - quality) + 0.02 * noise


def searched(hints: dict[str, Hint] | None, count: int) -> tuple[Problem, PredictedSearch, list[Subnet]]:
    space = FakeSpace(blocks=6, free=14, steps=8)
    evaluator = NetworkEvaluator(space)
    problem = Problem(space, NETWORK, hints=hints)
    settings = SearchSettings(algorithm="concurrent", population=24)
    algorithm = make_algorithm(problem, settings, np.random.default_rng(0))
    assert isinstance(algorithm, PredictedSearch)
    measured: list[Subnet] = []
    while len(measured) < count:
        batch = algorithm.ask(8)
        measured += [problem.subnet(g) for g in batch]
        rows = [problem.minimised(evaluator.evaluate(problem.subnet(g), 0).values) for g in batch]
        algorithm.tell(batch, np.array(rows))
    return problem, algorithm, measured


def test_a_costly_hint_is_asked_of_a_few() -> None:
    """Of some all over the space, a few for each that is measured, each once; the others are predicted well."""
    asked = Asked(NetworkEvaluator(FakeSpace(blocks=6, free=14, steps=8)))
    problem, algorithm, measured = searched({"quality": Hint(asked, costly=True)}, 40)
    keys = [s.key() for s in asked.subnets]
    assert len(set(keys)) == len(keys)
    assert len(keys) <= FIRST_LOOKS + 16 + 32 * LOOKS
    assert {s.key() for s in measured[:32]} <= set(keys)  # the last ones are looked at when they are told
    rng = np.random.default_rng(5)
    fresh = [problem.encode(problem.space.random(rng)) for _ in range(60)]
    column = algorithm._features.of(fresh)[:, -1]
    truth = [asked.evaluator.evaluate(problem.subnet(g), 0).values["quality"] for g in fresh]
    assert score(column, -np.array(truth)).kendall > 0.7
    assert len(asked.subnets) == len(keys)


def test_what_was_asked_is_taken_as_it_was_said() -> None:
    space = FakeSpace(blocks=3, free=4, steps=4)
    asked = Asked(NetworkEvaluator(space))
    problem = Problem(space, NETWORK, hints={"quality": Hint(asked, costly=True)})
    features, rng = Features(problem), np.random.default_rng(0)
    genotypes = [problem.encode(space.random(rng)) for _ in range(20)]
    features.look(genotypes)
    said = [-asked(problem.subnet(g)) for g in genotypes]  # minimised
    np.testing.assert_array_equal(features.of(genotypes)[:, -1], said)


def test_hints_of_everything_need_a_handful_of_candidates() -> None:
    """With both objectives hinted, predictions begin after eight candidates."""
    evaluator = NetworkEvaluator(FakeSpace(blocks=6, free=14, steps=8))
    hints = {
        "quality": Hint(Asked(evaluator), costly=True),
        "latency": Hint(partial(line_of, evaluator)),
    }
    _, algorithm, _ = searched(hints, 16)
    assert [r.measured for r in algorithm.rounds] == [8]
    assert algorithm.rounds[0].names == ("transferred gp", "transferred gp")


@pytest.mark.parametrize("everything", [False, True])
def test_a_costly_hint_that_is_no_number_says_nothing(everything: bool) -> None:
    evaluator = NetworkEvaluator(FakeSpace(blocks=6, free=14, steps=8))
    hints = {"quality": Hint(Asked(evaluator, broken=True), costly=True)}
    if everything:
        hints["latency"] = Hint(partial(line_of, evaluator))
    _, algorithm, measured = searched(hints, 32)
    assert len(measured) == 32
    assert np.isfinite([s.mape for r in algorithm.rounds for s in r.scores]).all()

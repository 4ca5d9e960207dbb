"""What earlier searches are good for: a warm start, and a smaller space."""

from __future__ import annotations

import numpy as np
import pytest

from onnxnas.errors import ConfigError, RunError
from onnxnas.search import (
    Frame,
    Prior,
    Problem,
    ReducedSpace,
    SearchSettings,
    better_half,
    hypervolume,
    make_algorithm,
    populated,
    run,
    sqlite_url,
)
from onnxnas.search.features import Features
from onnxnas.search.predictors import fitted
from onnxnas.testing.algorithms import AlgorithmConformance, residual_space
from onnxnas.types import Subnet, Trial
from tests.search.search_fakes import NETWORK, FakeSpace, NetworkEvaluator

SPACE = FakeSpace(blocks=6, free=14, steps=8)
FRAME = Frame((-95.0, 1.0), (-60.0, 42.0))


def here(subnet: Subnet, number: int = 0) -> Trial:
    """The figures of this target: those of `NetworkEvaluator`."""
    return NetworkEvaluator(SPACE).evaluate(subnet, number)


def there(subnet: Subnet, number: int = 0) -> Trial:
    """Another target: other times for every other layer, and another super-network a little worse."""
    trial = here(subnet, number)
    odd = sum(subnet.width.get(f"g{i}", 8) for i in range(0, 20, 2)) / 8
    values = {
        "quality": 0.9 * trial.values["quality"] - 1,
        "latency": 0.3 * trial.values["latency"] + 0.4 * odd,
    }
    return Trial(number, subnet, "ok", values)


def elsewhere(n: int = 160, seed: int = 5) -> Prior:
    """What a search of the other target found out."""
    problem = Problem(SPACE, NETWORK)
    algorithm = make_algorithm(problem, SearchSettings(population=16), np.random.default_rng(seed))
    trials: list[Trial] = []
    while len(trials) < n:
        batch = algorithm.ask(16)
        new = [there(problem.subnet(g)) for g in batch]
        algorithm.tell(batch, np.array([problem.minimised(t.values) for t in new]))
        trials += new
    return Prior.of(trials, ["quality", "latency", "no_such"])


def reached(name: str, n: int, seed: int, prior: Prior | None, space: object = SPACE) -> float:
    """The hypervolume after n candidates."""
    problem = Problem(space, NETWORK, prior)  # type: ignore[arg-type]
    settings = SearchSettings(algorithm=name, population=16)
    algorithm = make_algorithm(problem, settings, np.random.default_rng(seed))
    rows: list[np.ndarray] = []
    while len(rows) < n:
        batch = algorithm.ask(min(8, n - len(rows)))
        new = [problem.minimised(here(problem.subnet(g)).values) for g in batch]
        algorithm.tell(batch, np.array(new))
        rows += new
    return hypervolume(np.array(rows), FRAME)


class TestWithPrior(AlgorithmConformance):
    """A prior changes what is proposed first, none of the promises."""

    algorithm = "concurrent"

    def make(self, problem: Problem, seed: int = 0) -> object:  # type: ignore[override]
        rng = np.random.default_rng(1)
        space = residual_space()
        subnets = tuple(space.repair(space.random(rng)) for _ in range(30))
        figures = np.array([[-1.0 * space.cost(s).macs, float(i)] for i, s in enumerate(subnets)])
        given = Problem(problem.space, problem.objectives, Prior(subnets, ("quality", "cost"), figures))
        return make_algorithm(given, self.settings(), np.random.default_rng(seed))


class TestReduced(AlgorithmConformance):
    """Algorithms do not notice that a space was reduced."""

    algorithm = "nsga2"

    def space(self) -> ReducedSpace:  # type: ignore[override]
        whole = residual_space()
        widths = [d for d in whole.dimensions if d.kind == "width"]
        return ReducedSpace(whole, {widths[0].name: [1, 2], whole.dimensions[0].name: [1]})

    def tiny_space(self) -> ReducedSpace:  # type: ignore[override]
        whole = residual_space()
        return ReducedSpace(whole, {d.name: [0] for d in whole.dimensions[4:]})


@pytest.mark.parametrize("name", ["nsga2", "concurrent", "tpe"])
def test_fewer_measurements_with_a_prior(name: str) -> None:
    prior = elsewhere()
    warm = [reached(name, 20, seed, prior) for seed in range(3)]
    assert np.mean(warm) > np.mean([reached(name, 20, seed, None) for seed in range(3)])
    if name == "concurrent":  # it learns from the figures, the others only begin with the best
        assert np.mean(warm) > np.mean([reached(name, 40, seed, None) for seed in range(3)])
        longer = [reached(name, 32, seed, prior) for seed in range(3)]
        assert np.mean(longer) > 0.99 * np.mean([reached(name, 80, seed, None) for seed in range(3)])


def test_what_was_best_there_is_measured_first_and_is_half_of_every_round() -> None:
    """Those that are predicted to be good are in part lucky guesses; the others are known to be good there."""
    prior = elsewhere()
    problem = Problem(SPACE, NETWORK, prior)
    best = [problem.key(genotype) for genotype in prior.best(problem, 12)]
    settings = SearchSettings(algorithm="concurrent", population=24)
    algorithm = make_algorithm(problem, settings, np.random.default_rng(0))
    asked: list[str] = []
    for _ in range(2):
        batch = algorithm.ask(24)
        asked += [problem.key(genotype) for genotype in batch]
        algorithm.tell(batch, np.array([problem.minimised(here(problem.subnet(g)).values) for g in batch]))
    assert asked[:12] == best
    assert len(set(asked)) == len(asked) == 16
    old = {problem.key(genotype) for genotype in prior.genotypes(problem)}
    assert not old.intersection(asked[12:])


def test_figures_from_elsewhere_are_corrected_by_a_few_measurements() -> None:
    """With 12 candidates measured here, latency is predicted better with a prior than without."""
    prior = elsewhere()
    rng = np.random.default_rng(8)
    errors = []
    for given in (prior, None):
        problem = Problem(SPACE, NETWORK, given)
        genotypes = [problem.encode(SPACE.random(np.random.default_rng(i))) for i in range(112)]
        truth = np.array([here(problem.subnet(g)).values["latency"] for g in genotypes])
        features = Features(problem)
        x = features.of(genotypes)
        assert features.elsewhere == (2 if given else 0)
        noisy = truth[:12] * (1 + 0.01 * rng.standard_normal(12))
        _, model = fitted("auto", x[:12], noisy, features.elsewhere)
        errors.append(np.abs(model.predict(x[12:]) / truth[12:] - 1).mean())
    assert errors[0] < 0.5 * errors[1]


def test_a_prior_keeps_only_what_succeeded_and_is_the_same_after_json() -> None:
    trials = [here(SPACE.maximal()), Trial(1, SPACE.minimal(), "crashed", {})]
    prior = Prior.of(trials, ["latency", "quality", "size"])
    assert len(prior) == 1
    assert prior.names == ("latency", "quality")
    again = Prior.from_json(prior.to_json())
    assert again.digest == prior.digest
    assert again.subnets == prior.subnets
    assert Prior.of(trials, ["quality"]).digest != prior.digest


def test_a_study_with_another_prior_is_another_study(tmp_path: object) -> None:
    url = sqlite_url(f"{tmp_path}/study.db")
    settings = SearchSettings(population=4, max_trials=6)
    run(SPACE, NetworkEvaluator(SPACE), NETWORK, settings, url, 0, prior=elsewhere(32))
    again = run(SPACE, NetworkEvaluator(SPACE), NETWORK, settings, url, 0, prior=elsewhere(32))
    assert len(again) == 6
    with pytest.raises(RunError, match="prior"):
        run(SPACE, NetworkEvaluator(SPACE), NETWORK, settings, url, 0, prior=elsewhere(32, seed=6))


def test_what_no_cluster_chooses_leaves_the_space() -> None:
    """Two crowds of good candidates, and others that choose anything."""
    rng = np.random.default_rng(0)
    space = FakeSpace(blocks=1, free=10, steps=8)
    centres = [np.array([0, 2, 5, *[3] * 9]), np.array([0, 2, 0, *[6] * 9])]
    crowd = [np.r_[c[:3], c[3:] + rng.integers(-1, 1, 9, endpoint=True)] for c in centres for _ in range(80)]
    noise = [np.array([1, *rng.integers(0, 8, 11)]) for _ in range(8)]
    kept = list(populated(space, [space.decode(g) for g in (*crowd, *noise)], 0.02).values())
    assert kept[:3] == [[0], [2], [0, 5]]
    assert kept[3:] == [[2, 3, 4, 5, 6, 7]] * 9
    with pytest.raises(ConfigError, match="20 good candidates or more: got 3"):
        populated(space, [space.decode(g) for g in crowd[:3]], 0.01)


def test_what_makes_no_difference_has_no_say() -> None:
    """The width in a skipped block is told as the full one; full widths stay for nobody who has one."""
    space = FakeSpace(blocks=3, free=2, steps=8)
    crowd = []
    for i in range(60):
        skip = {"b1"} | ({"b2"} if i % 2 else set())
        narrow = {"g0": 4, "g1": 2, "g2": 3, "g3": 5 - i % 2, "g4": 8}
        crowd.append(space.effective(Subnet(frozenset(skip), narrow)))
    kept = populated(space, crowd, 0.1)
    assert kept["b0"] == [0]
    assert kept["b1"] == [1]
    assert kept["b2"] == [0, 1]
    assert kept["g0"] == [4]
    assert kept["g1"] == list(range(8))  # nobody has that block
    assert kept["g2"] == [5]  # half of them skip that block
    assert kept["g3"] == [3, 4]
    assert kept["g4"] == [0]


def test_the_better_half_of_what_succeeded() -> None:
    front = [
        Trial(i, Subnet(width={"g0": i}), "ok", {"quality": 90.0 - i, "latency": 10.0 - i}) for i in (1, 2)
    ]
    worse = [Trial(i, Subnet(width={"g0": i}), "ok", {"quality": 50.0, "latency": 10.0 + i}) for i in (3, 4)]
    failed = Trial(5, Subnet(), "crashed", {})
    assert better_half([worse[0], front[1], failed, worse[1], front[0]], NETWORK) == [
        front[1].subnet,
        front[0].subnet,
    ]
    assert better_half([failed], NETWORK) == []


def test_a_reduced_space_is_part_of_the_whole() -> None:
    space = ReducedSpace(SPACE, {"b1": [1], "g3": [2, 4, 6], "g7": [0]})
    assert space.size_log10 == pytest.approx(5 * np.log10(2) + 18 * np.log10(8) + np.log10(3))
    assert space.digest != SPACE.digest
    assert space.maximal().skip == {"b1"}
    rng = np.random.default_rng(1)
    for _ in range(50):
        subnet = space.random(rng)
        assert space.repair(subnet) == subnet
        assert space.decode(space.encode(subnet)) == subnet
        assert "b1" in subnet.skip or "b0" in subnet.skip
        assert subnet.width.get("g3", 8) in (6, 4, 2)
        assert subnet.width.get("g7", 8) == 8
        inside = Problem(space, NETWORK)
        assert inside.key(inside.encode(subnet)) == SPACE.effective(subnet).key()
    # the nearest neighbour of a sub-network outside
    outside = Subnet(frozenset(), {"g3": 8, "g7": 1})
    assert space.repair(outside) == Subnet(frozenset({"b1"}), {"g3": 6})
    for wrong in ({"g3": [8]}, {"g3": []}, {"nothing": [0]}):
        with pytest.raises(ConfigError, match="reduced space"):
            ReducedSpace(SPACE, wrong)

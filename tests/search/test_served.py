"""A space whose sub-networks are also served in different ways."""

from __future__ import annotations

import numpy as np
import pytest

from onnxnas import search
from onnxnas.search import Problem, RoundedSpace, ServedSpace
from onnxnas.search.algorithm import make_algorithm
from onnxnas.testing.algorithms import AlgorithmConformance, residual_space
from onnxnas.types import Objective, Subnet

CHOICES = {"threads": (1, 2), "batch": (1, 4, 16), "spinning": (True, False)}
OBJECTIVES = [Objective("quality", "", maximise=True), Objective("latency_ms", "", maximise=False)]
PLAIN = residual_space()
SPACE = ServedSpace(PLAIN, CHOICES)


def test_dimensions_follow_those_of_the_network() -> None:
    own = len(PLAIN.dimensions)
    assert [d.name for d in SPACE.dimensions[own:]] == list(CHOICES)
    assert SPACE.size_log10 == pytest.approx(PLAIN.size_log10 + np.log10(12))
    assert SPACE.maximal() == Subnet()
    assert SPACE.digest != PLAIN.digest
    assert SPACE.digest != ServedSpace(PLAIN, {**CHOICES, "batch": (1, 4)}).digest


def test_genotypes_and_back() -> None:
    """Every way of serving is met, and what a skipped block makes equal stays equal however it is served."""
    rng = np.random.default_rng(0)
    problem = Problem(SPACE, OBJECTIVES)
    plain = Problem(PLAIN, OBJECTIVES)
    met = set()
    for _ in range(300):
        subnet = SPACE.random(rng)
        genotype = problem.encode(subnet)
        assert SPACE.decode(genotype) == subnet
        assert SPACE.repair(subnet) == subnet
        assert Subnet.from_json(subnet.to_json()) == subnet
        effective = problem.subnet(genotype)
        assert effective.structure == plain.subnet(plain.encode(subnet.structure))
        assert effective.serving == subnet.serving
        met.add(tuple(subnet.serving.get(name, values[0]) for name, values in CHOICES.items()))
    assert len(met) == 12


def test_the_target_itself_has_the_key_of_the_network() -> None:
    """Figures that were kept by key before there was serving are still found."""
    subnet = PLAIN.minimal()
    assert subnet.served({}).key() == subnet.key()
    assert subnet.served({"threads": 2}).key() != subnet.key()
    assert subnet.served({"threads": 2}).structure == subnet


@pytest.mark.parametrize("algorithm", ["nsga2", "concurrent"])
def test_the_original_otherwise_is_among_the_first(algorithm: str) -> None:
    """With each other value of one choice, before any structure is known to be worth it."""
    space = RoundedSpace(ServedSpace(PLAIN, CHOICES), ("fp32", "int8"))
    settings = search.SearchSettings(algorithm=algorithm, population=24)
    asked = make_algorithm(Problem(space, OBJECTIVES), settings, np.random.default_rng(0)).ask(24)
    first = [space.decode(genotype) for genotype in asked]
    changed = [s for s in first if s.structure == Subnet() and s != Subnet()]
    assert {(*s.serving.items(), *s.precision.items()) for s in changed} == {
        (("threads", 2),),
        (("batch", 4),),
        (("batch", 16),),
        (("spinning", False),),
        (("*", "int8"),),
    }
    plain = make_algorithm(Problem(PLAIN, OBJECTIVES), settings, np.random.default_rng(0)).ask(24)
    assert sum(PLAIN.decode(genotype) == Subnet() for genotype in plain) == 1


def test_what_others_had_and_this_has_not_is_as_the_target_says() -> None:
    other = PLAIN.minimal().served({"threads": 8, "batch": 4, "streams": 3})
    assert SPACE.repair(other).serving == {"batch": 4}
    assert Problem(PLAIN, OBJECTIVES).encode(other).tolist() == PLAIN.encode(PLAIN.minimal()).tolist()


class TestServed(AlgorithmConformance):
    """Algorithms do not notice that some dimensions are no network's."""

    algorithm = "nsga2"

    def space(self) -> ServedSpace:  # type: ignore[override]
        return SPACE

    def tiny_space(self) -> ServedSpace:  # type: ignore[override]
        few = search.ReducedSpace(PLAIN, {d.name: [0] for d in PLAIN.dimensions[3:]})
        return ServedSpace(few, {"threads": (1, 2)})


class TestServedAndPredicted(TestServed):
    algorithm = "concurrent"


class TestRounded(AlgorithmConformance):
    """Precision and serving, one upon the other."""

    algorithm = "nsga2"

    def space(self) -> ServedSpace:  # type: ignore[override]
        return ServedSpace(RoundedSpace(PLAIN, ("fp32", "int8")), CHOICES)

    def tiny_space(self) -> ServedSpace:  # type: ignore[override]
        few = search.ReducedSpace(PLAIN, {d.name: [0] for d in PLAIN.dimensions[3:]})
        return ServedSpace(RoundedSpace(few, ("int8",)), {"threads": (1, 2)})


class TestRoundedAndPredicted(TestRounded):
    algorithm = "concurrent"


def test_precision_and_serving_and_back() -> None:
    space = ServedSpace(RoundedSpace(PLAIN, ("fp32", "int8")), CHOICES)
    problem, rng, met = Problem(space, OBJECTIVES), np.random.default_rng(0), set()
    for _ in range(100):
        subnet = space.random(rng)
        assert space.decode(problem.encode(subnet)) == subnet
        assert space.repair(subnet) == subnet
        assert Subnet.from_json(subnet.to_json()) == subnet
        effective = problem.subnet(problem.encode(subnet))
        assert (effective.precision, effective.serving) == (subnet.precision, subnet.serving)
        assert effective.structure == PLAIN.effective(subnet.structure)
        met.add((*subnet.precision.values(), *subnet.serving.values()))
    assert len(met) > 12
    assert space.maximal() == Subnet()


def test_with_one_precision_every_network_has_it() -> None:
    space = RoundedSpace(PLAIN, ("int8",))
    assert space.maximal() == Subnet(precision={"*": "int8"})
    assert space.minimal() == PLAIN.minimal().rounded({"*": "int8"})
    assert space.repair(PLAIN.minimal()) == space.minimal()
    assert space.size_log10 == PLAIN.size_log10
    assert space.digest != PLAIN.digest

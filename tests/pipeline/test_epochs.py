"""Epochs that fit into the time there is, against the time that they take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxnas.pipeline.crew import makespan
from onnxnas.pipeline.epochs import fitting_epochs

seconds = st.floats(1.0, 1000.0)


@given(
    st.lists(seconds, min_size=1, max_size=6),
    st.integers(1, 4),
    seconds,
    st.integers(0, 40),
    st.floats(60.0, 1e5),
    st.integers(1, 60),
)
def test_they_take_the_time_there_is(
    each: list[float], size: int, asking: float, known: int, left: float, distinct: int
) -> None:
    known = min(known, distinct)
    epochs = fitting_epochs(each, size, left, 1e9, asking=asking, known=known, distinct=distinct)
    told = asking * max(0.0, min(distinct, max(epochs)) - known)
    whole = told + makespan([own * count for own, count in zip(each, epochs, strict=True)], size)
    # rounded to hundredths of an epoch
    assert whole == pytest.approx(left, abs=0.01 * (asking + sum(each)))


def test_the_faster_ones_see_more_where_all_work_at_once() -> None:
    assert fitting_epochs([10, 20], 2, 600, 100) == [60, 30]
    assert fitting_epochs([10, 20], 1, 600, 100) == [20, 20]
    assert fitting_epochs([10, 20, 10], 2, 600, 100) == [30, 30, 30]


def test_answers_that_are_there_cost_nothing() -> None:
    assert fitting_epochs([10, 10], 2, 600, 100, asking=10, known=0) == [30, 30]
    assert fitting_epochs([10, 10], 2, 600, 100, asking=10, known=20) == [40, 40]
    assert fitting_epochs([10, 10], 2, 600, 100, asking=10, known=90) == [60, 60]


def test_what_comes_again_need_not_be_asked_again() -> None:
    assert fitting_epochs([10, 10], 2, 600, 100, asking=10, distinct=10) == [50, 50]
    assert fitting_epochs([10, 10], 2, 600, 100, asking=10, known=10, distinct=10) == [60, 60]


def test_no_more_than_are_wanted() -> None:
    """What the answers do not take then is left for the others."""
    assert fitting_epochs([10, 30], 2, 600, 20, asking=5) == [20, pytest.approx(16.67)]

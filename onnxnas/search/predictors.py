"""Predictors of one objective from features, and the choice among them by cross-validation.

| name | model | good at |
|---|---|---|
| `ridge` | linear, strength of the penalty by leave-one-out | latency, sizes; few samples |
| `svr` | support vectors with a radial kernel | smooth curves, quality |
| `trees` | gradient-boosted trees | steps and interactions; many samples |

How good a predictor is, is never assumed: `Score` compares its answers with trials that it had not seen.
(Cummings et al., Hardware-aware framework for neural architecture search, 2022, use ridge and SVR.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ConfigError
from onnxnas.plugins import is_reference, load_object

Floats = NDArray[np.float64]
FOLDS = 5
MANY = 400  # samples up to which a Gaussian process is fitted in a second or two


class Fitted(Protocol):
    """What can predict."""

    def predict(self, features: Floats) -> Floats:
        """The values (n,) that features (n, f) will have."""
        ...


class Predictor(Fitted, Protocol):
    """A regression model. `fit` forgets what it was fitted to before; the same data give the same answers."""

    def fit(self, features: Floats, values: Floats) -> object:
        """Learn n values (n,) from features (n, f)."""
        ...


@dataclass(frozen=True)
class Score:
    """Of predictions against values that were not fitted: mean absolute error in %, rank correlations."""

    mape: float
    spearman: float
    kendall: float
    n: int


@dataclass(frozen=True)
class Round:
    """How well the predictors of one round said what the candidates picked by them turned out to be."""

    measured: int  # candidates that they were fitted to
    names: tuple[str, ...]
    scores: tuple[Score, ...]


def _ridge() -> Predictor:
    from sklearn.linear_model import RidgeCV

    return _scaled(RidgeCV(alphas=np.logspace(-3, 3, 13)))


def _svr() -> Predictor:
    from sklearn.svm import SVR

    return _scaled(SVR(C=30.0, epsilon=0.02))


def _gp() -> Predictor:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    smooth = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(5.0, (1.0, 1e2), nu=2.5)
    noise = WhiteKernel(0.05, (1e-4, 1.0))
    return _scaled(GaussianProcessRegressor(smooth + noise, random_state=0))


def _trees() -> Predictor:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return _scaled(
        HistGradientBoostingRegressor(
            learning_rate=0.08, max_iter=150, max_leaf_nodes=8, min_samples_leaf=5, random_state=0
        )
    )


def _scaled(model: Any) -> Predictor:
    """Features and values of mean 0 and variance 1; columns that never change are left out."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    line = make_pipeline(VarianceThreshold(1e-12), StandardScaler(), model)
    scaled: Predictor = TransformedTargetRegressor(line, transformer=StandardScaler())
    return scaled


PREDICTORS: Mapping[str, Callable[[], Predictor]] = {
    "gp": _gp,
    "ridge": _ridge,
    "svr": _svr,
    "trees": _trees,
}


def make_predictor(name: str) -> Predictor:
    """A new predictor by name, or by calling `module:name`. Raises ConfigError."""
    if is_reference(name):
        return load_object(name, what="predictor")()  # type: ignore[no-any-return]
    if name not in PREDICTORS:
        raise ConfigError(
            f"predictor {name!r} is not known: use one of {', '.join(PREDICTORS)}, auto, or module:name"
        )
    return PREDICTORS[name]()


class Transferred:
    """A line through what is known from elsewhere (the last `k` features), and another model of what is left."""

    def __init__(self, k: int, rest: Predictor) -> None:
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._k, self._rest = k, rest
        self._line = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-4, 2, 7)))

    def fit(self, features: Floats, values: Floats) -> object:
        known = features[:, -self._k :]
        self._line.fit(known, values)
        self._rest.fit(features, values - self._line.predict(known))
        return self

    def predict(self, features: Floats) -> Floats:
        line: Floats = self._line.predict(features[:, -self._k :])
        return line + self._rest.predict(features)


def fitted(
    name: str, features: Floats, values: Floats, elsewhere: int = 0, *, hinted: bool = False
) -> tuple[str, Predictor]:
    """A predictor fitted to all of n values.

    `auto` is a Gaussian process up to `MANY` values: cross-validation of few chooses by chance, and a search that
    changes its predictor from round to round does worse (docs/search.md). Above, it is the one of the others with the
    least cross-validated error; a Gaussian process takes time with the cube of n.

    The last `elsewhere` features are said to be figures of the same candidates in another place; `auto` then also
    tries what corrects them (`Transferred`), and nothing else when it is `hinted` that they say the values but for a
    line. Raises ConfigError for an unknown name.
    """
    if name != "auto":
        return name, _fitted(make_predictor(name), features, values)
    names = [n for n in PREDICTORS if (n == "gp") == (len(values) <= MANY)]
    makers: dict[str, Callable[[], Predictor]] = {n: PREDICTORS[n] for n in names}
    if elsewhere:
        makers = {
            **{f"transferred {n}": partial(_transferred, elsewhere, n) for n in names},
            **({} if hinted else makers),
        }
    chosen = next(iter(makers))
    if len(makers) > 1 and len(values) >= 2 * FOLDS:
        chosen = min(makers, key=lambda n: _error(makers[n], features, values))
    return chosen, _fitted(makers[chosen](), features, values)


def _transferred(elsewhere: int, name: str) -> Predictor:
    return Transferred(elsewhere, make_predictor(name))


def _fitted(model: Predictor, features: Floats, values: Floats) -> Predictor:
    """scikit-learn's support vectors draw a number from numpy's global generator, which is put back.

    That a length scale or the noise of a Gaussian process ends at its bound is no news.
    """
    from sklearn.exceptions import ConvergenceWarning

    state = np.random.get_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, values)
    finally:
        np.random.set_state(state)
    return model


def _error(make: Callable[[], Predictor], features: Floats, values: Floats) -> float:
    """Mean absolute error over folds of interleaved samples."""
    place = np.arange(len(values)) % FOLDS
    total = 0.0
    for fold in range(FOLDS):
        held = place == fold
        model = _fitted(make(), features[~held], values[~held])
        total += float(np.abs(model.predict(features[held]) - values[held]).sum())
    return total / len(values)


def score(predicted: Floats, measured: Floats) -> Score:
    """How well n predictions (n,) say what was measured (n,). Correlations of constant values are 0."""
    from scipy import stats

    error = np.abs(predicted - measured) / np.maximum(np.abs(measured), 1e-12)
    flat = np.ptp(predicted) == 0 or np.ptp(measured) == 0
    spearman = 0.0 if flat else float(stats.spearmanr(predicted, measured).statistic)
    kendall = 0.0 if flat else float(stats.kendalltau(predicted, measured).statistic)
    return Score(100 * float(error.mean()), spearman, kendall, len(measured))

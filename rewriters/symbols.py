"""Dimensions that are not numbers yet: products such as `64*N`, and opaque names for everything else.

Shape arithmetic of exporters multiplies and divides a batch size and compares it with -1; products with a
rational coefficient follow that exactly ((64*N)/64 is N again). A sum, or a quotient with a remainder,
becomes an opaque name built from its operands, so that equal expressions still compare equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Element = Any  # int, bool, float or Dim
_LONGEST = 80


class Unknown(Exception):
    """The value cannot be told from what is known."""


@dataclass(frozen=True)
class Dim:
    """`coefficient` times the product of `factors` (sorted, repeats allowed, never empty)."""

    factors: tuple[str, ...]
    coefficient: Fraction = Fraction(1)

    def __str__(self) -> str:
        product = "*".join(self.factors)
        top, bottom = self.coefficient.numerator, self.coefficient.denominator
        text = product if top == 1 else f"{top}*{product}"
        return text if bottom == 1 else f"{text}/{bottom}"

    @property
    def positive(self) -> bool:
        """Whether it is a product of sizes, which cannot be negative."""
        return self.coefficient > 0 and not any(f.startswith("(") for f in self.factors)

    def __mul__(self, other: Element) -> Element:
        if isinstance(other, Dim):
            return Dim(tuple(sorted(self.factors + other.factors)), self.coefficient * other.coefficient)
        number = _exact(other)
        return 0 if number == 0 else Dim(self.factors, self.coefficient * number)

    __rmul__ = __mul__

    def __neg__(self) -> Element:
        return self * -1

    def __add__(self, other: Element) -> Element:
        if isinstance(other, Dim):
            if self.factors == other.factors:
                total = self.coefficient + other.coefficient
                return Dim(self.factors, total) if total else 0
            first, second = sorted((str(self), str(other)))
            return opaque(f"({first}+{second})")
        return self if _exact(other) == 0 else opaque(f"({self}+{other})")

    __radd__ = __add__

    def __sub__(self, other: Element) -> Element:
        return self + other * -1

    def __rsub__(self, other: Element) -> Element:
        return self * -1 + other


def opaque(text: str) -> Dim:
    """An atomic dimension called `text`. Raises Unknown if that grows without bound."""
    if len(text) > _LONGEST:
        raise Unknown
    return Dim((text,))


def _exact(number: Element) -> Fraction:
    value = float(number)
    if not np.isfinite(value):
        raise Unknown
    return Fraction(number) if isinstance(number, int) else Fraction(value)


def divide(a: Element, b: Element, *, integer: bool) -> Element:
    """a / b as ONNX's Div does it: truncated towards zero for integers. Raises Unknown."""
    if not isinstance(a, Dim) and not isinstance(b, Dim):
        if b == 0:
            raise Unknown
        if not integer:
            return a / b
        return abs(int(a)) // abs(int(b)) * (1 if (a < 0) == (b < 0) else -1)
    if not isinstance(b, Dim) and _exact(b) == 0:
        raise Unknown
    if not isinstance(a, Dim):
        if a == 0:
            return 0
        return opaque(f"({a}/{b})")
    rest, divisor = list(a.factors), b.factors if isinstance(b, Dim) else ()
    coefficient = a.coefficient / (b.coefficient if isinstance(b, Dim) else _exact(b))
    for factor in divisor:
        if factor not in rest:
            return opaque(f"({a}/{b})")
        rest.remove(factor)
    if integer and coefficient.denominator != 1:
        return opaque(f"({a}/{b})")
    if rest:
        return Dim(tuple(rest), coefficient)
    return int(coefficient) if coefficient.denominator == 1 else float(coefficient)


def rounded(a: Element, name: str) -> Element:
    """Floor or Ceil (`name`) of a number or a dimension."""
    if not isinstance(a, Dim):
        return float(np.floor(a)) if name == "Floor" else float(np.ceil(a))
    return a if a.coefficient.denominator == 1 else opaque(f"({name} {a})")


def same(a: Element, b: Element) -> bool:
    """Whether two elements are equal. Raises Unknown where that depends on what a symbol stands for."""
    if isinstance(a, Dim) and isinstance(b, Dim):
        if a == b:
            return True
        raise Unknown
    if isinstance(a, Dim) or isinstance(b, Dim):
        dim, number = (a, b) if isinstance(a, Dim) else (b, a)
        if dim.positive and number < 0:
            return False
        raise Unknown
    return bool(a == b)


def product(elements: Any) -> Element:
    """The product of numbers and dimensions; 1 for none."""
    total: Element = 1
    for element in elements:
        total = total * element
    return total


def array(elements: Any) -> NDArray[np.object_]:
    """A one-dimensional object array."""
    out = np.empty(len(elements), dtype=object)
    out[:] = elements
    return out


def is_known(values: NDArray[Any]) -> bool:
    """Whether no element is a symbol."""
    return values.dtype != object or not any(isinstance(v, Dim) for v in values.flat)

"""Arguments of any function of tensors, drawn from a few words about each.

An argument is named by its dimensions, "b t s": equal letters are equal sizes, and a digit is that
size. Values have few digits, so that every floating dtype holds them exactly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

Sizes = dict[str, int]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Values:
    """A tensor argument."""

    dims: tuple[str, ...]
    draw: Callable[[tuple[int, ...], Generator, Sizes], Tensor]
    """A tensor of a shape."""
    degenerate: tuple[Callable[[Tensor], Tensor], ...] = ()
    """What may become of it that is at the edge of what is allowed."""
    floating: bool = True

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """Of these sizes."""
        return tuple(int(dim) if dim.isdigit() else sizes[dim] for dim in self.dims)


@dataclass(frozen=True)
class Given:
    """An argument that is no tensor: what fits the sizes, and what else may be tried."""

    fits: Callable[[Sizes], Any]
    tried: st.SearchStrategy


def real(dims):
    """Multiples of 1/16 around 0."""
    at_edge = (torch.neg, torch.zeros_like, torch.ones_like, _one_hot, _huge, _tiny, _denormal)
    return Values(tuple(dims.split()), lambda shape, g, _: _sixteenths(shape, g), at_edge)


def positive(dims):
    """Multiples of 1/16 above 0."""
    at_edge = (torch.zeros_like, torch.ones_like, _one_hot, _huge, _tiny, _denormal)
    return Values(
        tuple(dims.split()), lambda shape, g, _: _sixteenths(shape, g).abs() + 1 / 16, at_edge
    )


def descending(dims):
    """Singular values: positive and in descending order."""

    def draw(shape, g, _):
        return (_sixteenths(shape, g).abs() + 1 / 16).sort(-1, descending=True).values

    at_edge = (torch.zeros_like, torch.ones_like, _one_hot, _huge, _tiny, _denormal)
    return Values(tuple(dims.split()), draw, at_edge)


def distribution(dims):
    """Multiples of 1/64, above 0, that sum to 1 along the last dimension."""

    def draw(shape, g, _):
        n = shape[-1]
        counts = 1 + ((64 - n) * (2 * _normal(shape, g)).softmax(-1)).floor()
        rest = 64 - counts.sum(-1, keepdim=True)
        return counts.scatter_add(-1, counts.argmax(-1, keepdim=True), rest) / 64

    return Values(tuple(dims.split()), draw, (_one_hot, lambda x: torch.ones_like(x) / x.shape[-1]))


def orthonormal(dims):
    """Orthonormal columns."""
    return Values(tuple(dims.split()), lambda shape, g, _: torch.linalg.qr(_normal(shape, g)).Q)


def index(dims, below):
    """Whole numbers from 0."""

    def draw(shape, g, sizes):
        high = int(below) if below.isdigit() else sizes[below]
        return torch.randint(high, shape, generator=g)

    return Values(tuple(dims.split()), draw, floating=False)


def flags(dims):
    """True or false."""
    return Values(
        tuple(dims.split()),
        lambda shape, g, _: torch.rand(shape, generator=g) < 0.5,
        floating=False,
    )


def all_true(dims):
    """A mask that hides nothing."""
    return Values(
        tuple(dims.split()), lambda shape, *_: torch.ones(shape, dtype=torch.bool), floating=False
    )


def whole(fits):
    """A whole number, or a function of the sizes that gives it."""
    return Given(fits if callable(fits) else lambda _: fits, st.integers(-2, 9))


def number(fits):
    """A real number."""
    return Given(lambda _: fits, st.floats(-10, 10) | st.sampled_from([math.nan, math.inf, 1e300]))


def ranks(*letters):
    """Every rank that the sizes of these letters allow."""
    return Given(
        lambda sizes: list(range(1, 1 + min(sizes[letter] for letter in letters))),
        st.lists(st.integers(-1, 4), max_size=3),
    )


def choice(*values):
    """One of several."""
    return Given(lambda _: values[0], st.sampled_from(values))


@st.composite
def sizes_of(draw, case):
    """A size for every letter."""
    ranges = {letter: case.sizes.get(letter, (1, 4)) for letter in _letters(case)}
    return {letter: draw(st.integers(*limits)) for letter, limits in ranges.items()}


@st.composite
def fitting(draw, case, sizes=None):
    """Arguments as the function expects them."""
    sizes = draw(sizes_of(case)) if sizes is None else sizes
    generator = Generator().manual_seed(draw(st.integers(0, 2**16)))
    return {
        name: argument.draw(argument.shape(sizes), generator, sizes)
        if isinstance(argument, Values)
        else argument.fits(sizes)
        for name, argument in case.arguments.items()
    }


@st.composite
def any_shapes(draw, case):
    """Arguments that fit, but for a dimension that is empty; or of which none may fit another."""
    values = draw(fitting(case))
    if draw(st.booleans()):
        empty = draw(st.sampled_from(["", *_letters(case)]))
        for name, argument in case.arguments.items():
            if isinstance(argument, Values) and empty in argument.dims:
                shape = argument.shape(dict.fromkeys(_letters(case), 1) | {empty: 0})
                values[name] = values[name].new_empty(shape)
        return values
    for name, argument in case.arguments.items():
        if isinstance(argument, Given):
            values[name] = draw(argument.tried)
        elif draw(st.booleans()):
            shape = draw(st.lists(st.integers(0, 3), max_size=4))
            values[name] = torch.ones(shape, dtype=values[name].dtype)
    return values


def is_floating(value):
    """Whether this is a tensor of real numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()


def in_dtypes(values, dtypes):
    """The arguments, those that are named in their dtype."""
    return values | {name: values[name].to(dtype) for name, dtype in dtypes.items()}


def _letters(case):
    """The sizes that are free to vary."""
    dims = (a.dims for a in case.arguments.values() if isinstance(a, Values))
    return sorted({dim for some in dims for dim in some if not dim.isdigit()})


def _normal(shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _sixteenths(shape, generator):
    return (16 * _normal(shape, generator).clamp(-7, 7)).round() / 16


def _one_hot(x):
    hot = torch.zeros_like(x)
    hot[..., :1] = 1
    return hot


def _huge(x):
    return x * (1e300 if x.dtype == torch.float64 else 1e30)


def _tiny(x):
    return x * (1e-300 if x.dtype == torch.float64 else 1e-38)


def _denormal(x):
    return x * (1e-320 if x.dtype == torch.float64 else 1e-44)

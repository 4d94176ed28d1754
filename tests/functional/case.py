"""What the tests of properties need to know of a public function."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from lit_credit.functional import FactoredMatrix
from tests.functional.strategies import Given, Values


@dataclass(frozen=True)
class Case:
    """A call and the properties that it has."""

    call: Callable[..., Any]
    arguments: dict[str, Values | Given]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Ranges of sizes, by letter; from 1 to 4 else."""
    rows: int | None = None
    """The dimension of all results along which the letter b runs, if they are one by one."""
    bounds: Any = (-math.inf, math.inf)
    """Of all results, or a function of the sizes."""
    degrees: dict[str, Any] = field(default_factory=dict)
    """Scaling this argument by c scales all results, or each of them, by this power of c.

    Zero is then zero, or NaN where the power is 0. None: there is no such law.
    """
    double: bool = False
    """Results are float64 whatever the arguments are."""
    tolerance: float = 1e-9
    """By how much the rounding of float64 may change the results."""
    partial: tuple[str, ...] = ()
    """Arguments of which not every entry plays a part in every result."""
    covers: tuple[str, ...] = ()
    """Other public names, of what the call returns or takes."""

    def floating(self) -> list[str]:
        """Names of the arguments that are tensors of real numbers."""
        return [name for name, a in self.arguments.items() if isinstance(a, Values) and a.floating]

    def row_dims(self) -> dict[str, int]:
        """The arguments that have rows, and the dimension of each that they run along."""
        tensors = {name: a for name, a in self.arguments.items() if isinstance(a, Values)}
        return {name: a.dims.index("b") for name, a in tensors.items() if "b" in a.dims}

    def results(self, values):
        """All tensors that the call returns, numbers too."""
        return _flattened(self.call(**values))

    def degrees_of(self, name, results):
        """The power for each of the results."""
        degrees = self.degrees[name]
        return degrees if isinstance(degrees, tuple) else (degrees,) * len(results)


def of_factors(function, *names):
    """The function, of the two factors of each matrix in place of the matrix."""

    def call(**arguments):
        matrices = {
            name: FactoredMatrix(arguments.pop(f"{name}_left"), arguments.pop(f"{name}_right"))
            for name in names
        }
        return function(**arguments, **matrices)

    return call


def _flattened(found):
    if isinstance(found, FactoredMatrix):
        return [found.dense()]
    if isinstance(found, tuple):
        return [tensor for part in found for tensor in _flattened(part)]
    return [torch.as_tensor(found, dtype=torch.float64 if isinstance(found, float) else None)]

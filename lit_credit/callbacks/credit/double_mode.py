"""A dispatch mode that computes in float64 the operations that would compute below it."""

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_credit.utils.private_names import (
    DISPATCHERS,
    PRIVATE_DRAWS,
    TO_DTYPE,
    TorchDispatchMode,
    in_backward,
    schema_of,
)

__all__ = ["DoubleMode", "raised"]

_DRAWS = re.compile(
    r"(rand|randn|randint)(_like)?|normal(_functional)?_?|bernoulli_?|uniform_?|exponential_?|"
    r"log_normal_?|cauchy_?|geometric_?|random_?|multinomial|poisson|binomial|"
    + "|".join(PRIVATE_DRAWS)
)
"""Operations that draw random numbers, which depend on the precision."""


def raised(tensor: Tensor) -> Tensor:
    """The tensor in float64 if it holds real numbers, in complex128 if complex, else itself."""
    dtype = _raised_dtype(tensor.dtype)
    return tensor if dtype is tensor.dtype else tensor.to(dtype)


class DoubleMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes in float64 what a net casts below it, or makes below it, in forward and backward.

    A cast to float32 (``.float()``, ``.to(cfg.dtype)``, autocast, ``softmax(..., dtype=...)``)
    becomes a cast to float64. Tensors that the net makes (``torch.zeros``) are float64, and float32
    constants are raised when they enter an operation. Random numbers are drawn in ``drawn_in``.
    Operations that write into a float32 tensor from outside, or that have no float64 result, are
    counted. Values that leave torch (``x.numpy()``) are not seen.

    Args:
        drawn_in: dtype in which random numbers are drawn, that of the weights.

    Attributes:
        count: number of operations so far with a floating-point result, without views and draws.
        below: number of these that computed, or left their result, below float64.
        failed: the operation that raised last, None if none did.
    """

    supports_higher_order_operators = True

    def __init__(self, drawn_in: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn_in = drawn_in
        self.count = self.below = 0
        self.failed: str | None = None

    @property
    def share_below(self) -> float:
        """Share of the operations that were below float64, from 0 to 1."""
        return self.below / self.count if self.count else 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            if schema_of(func) is None:  # of higher order
                return self._kept(func(*args, **kwargs), counts=True)
            return self._run(func, _plan(func), list(args), dict(kwargs))
        except Exception:
            self.failed = str(func)
            raise

    def _run(self, func: Any, plan: "_Plan", args: list[Any], kwargs: dict[str, Any]) -> Any:
        if plan.draws:
            return self._draw(func, args, kwargs)
        if plan.name == "native_dropout":
            return self._dropout(func, *args)
        if plan.name == "view" and plan.dtype_at is not None:
            return self._bits(func, *args)
        if plan.name == TO_DTYPE and _is_low_dtype(kwargs.get("dtype")) and _by_autograd():
            # Autograd requires that the gradient of a tensor from outside has the tensor's dtype.
            self.count += 1
            self.below += 1
            return func(*args, **kwargs)
        given = _with_dtype_raised(plan, args, kwargs)
        if plan.is_view:
            return func(*args, **kwargs)
        if plan.written:
            return self._write(func, plan, args, kwargs)
        exact = _map(args, raised), _map_values(kwargs, raised)
        result = func(*exact[0], **exact[1])
        if plan.dtype_at is not None and not given and _is_low(result):
            # Made in the default dtype: make it again, since 0.1 has more digits in float64.
            result = func(*exact[0], **exact[1], dtype=_raised_dtype(result.dtype))
        if plan.pointwise and _is_low(result) and not _any(exact, _is_high):
            # For example a quotient of whole numbers, in the default dtype.
            exact = _map(args, _real), _map_values(kwargs, _real)
            result = func(*exact[0], **exact[1])
        return self._kept(result, counts=plan.computes, of=exact)

    def _kept(self, result: Any, counts: bool, of: Any = None) -> Any:
        """Count the operation, and return its result in float64."""
        low = _any(result, _is_low)
        if counts and (low or _any(result, _is_high)):
            self.count += 1
            # From whole numbers alone, nothing with a gradient loses precision.
            self.below += low and (of is None or _any(of, _is_high))
        return _map(result, raised) if low else result

    def _write(self, func: Any, plan: "_Plan", args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Write in place, into a float64 twin if the tensor itself is below float64."""
        arguments: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        targets = {
            key: arguments[key] for key in plan.written if isinstance(arguments.get(key), Tensor)
        }
        twins: dict[Any, Tensor] = {}
        if _any([*args, *kwargs.values()], _is_high):
            twins = {key: target.to(_raised_dtype(target.dtype)) for key, target in targets.items()
                     if _is_low(target)}  # fmt: skip
            arguments = {
                key: twins.get(key, value if key in targets else _map(value, raised))
                for key, value in arguments.items()
            }
        at = [arguments[index] for index in range(len(args))]
        result = func(*at, **{name: arguments[name] for name in kwargs})
        for key, twin in twins.items():
            targets[key].copy_(twin)
        if any(_is_low(target) or _is_high(target) for target in targets.values()):
            self.count += 1
            self.below += bool(twins)
        returned = [targets[key] for key in plan.written if key in targets]
        return returned[0] if twins and isinstance(result, Tensor) else result

    def _draw(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Draw random numbers in the lower precision, so that both precisions get the same ones."""
        lowered = _map(args, self._lowered)
        result = func(*lowered, **_map_values(kwargs, self._lowered))
        if schema_of(func).is_mutable and isinstance(args[0], Tensor):
            return args[0] if lowered[0] is args[0] else args[0].copy_(lowered[0])
        return _map(result, raised)

    def _lowered(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.drawn_in) if tensor.dtype is torch.float64 else tensor

    def _dropout(self, func: Any, x: Tensor, p: float, train: bool | None) -> Any:
        _, mask = func(torch.ones_like(x, dtype=self.drawn_in), p, train)
        self.count += 1
        kept = raised(x) * mask
        return (kept / (1 - p) if p < 1 and train is not False else kept), mask

    def _bits(self, func: Any, x: Tensor, dtype: torch.dtype) -> Any:
        """``x.view(dtype)``, which reinterprets the bits."""
        if x.dtype.itemsize != 8 or x.dtype is not torch.float64:
            return _map(func(x, dtype), raised)
        if dtype.is_floating_point:
            return func(x, _raised_dtype(dtype))
        self.count += 1
        self.below += 1
        return func(x.to(self.drawn_in), dtype)


class _Plan(NamedTuple):
    """Properties of an operation, read from its schema."""

    name: str
    draws: bool
    is_view: bool
    computes: bool
    pointwise: bool
    written: tuple[int | str, ...]
    """The arguments that the operation writes, by place or name."""
    dtype_at: int | str | None
    """The argument that is the dtype of the result."""


@lru_cache(maxsize=4096)
def _plan(func: Any) -> _Plan:
    schema = schema_of(func)
    name = schema.name.partition("::")[2]
    keys = [a.name if a.kwarg_only else place for place, a in enumerate(schema.arguments)]
    named = list(zip(keys, schema.arguments, strict=True))
    written = tuple(key for key, a in named if a.alias_info is not None and a.alias_info.is_write)
    aliased = any(r.alias_info is not None for r in schema.returns)
    tensors = any("Tensor" in str(a.type) for a in schema.arguments)
    return _Plan(
        name=name,
        draws=_DRAWS.fullmatch(name) is not None,
        is_view=aliased and not written and name not in ("lift_fresh", "lift"),
        computes=tensors and name not in ("lift_fresh", "lift", "clone", TO_DTYPE),
        pointwise=torch.Tag.pointwise in func.tags,
        written=written,
        dtype_at=next((key for key, a in named if a.name in ("dtype", "out_dtype")), None),
    )


def _with_dtype_raised(plan: _Plan, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Raise a requested dtype of the result to float64; return whether a dtype is requested."""
    at = plan.dtype_at
    if isinstance(at, str):
        if kwargs.get(at) is not None:
            kwargs[at] = _raised_dtype(kwargs[at])
            return True
    elif at is not None and at < len(args) and args[at] is not None:
        args[at] = _raised_dtype(args[at])
        return True
    return False


@lru_cache
def _raised_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype.is_complex:
        return torch.complex128
    return torch.float64 if dtype.is_floating_point else dtype


def _real(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype is torch.bool else tensor.double()


def _is_low(value: Any) -> bool:
    return isinstance(value, Tensor) and _is_low_dtype(value.dtype)


def _is_low_dtype(dtype: torch.dtype | None) -> bool:
    return dtype is not None and _raised_dtype(dtype) is not dtype


def _is_high(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.float64, torch.complex128)


def _any(values: Any, holds: Callable[[Any], bool]) -> bool:
    if isinstance(values, list | tuple):
        return any(_any(value, holds) for value in values)
    if isinstance(values, dict):
        return any(_any(value, holds) for value in values.values())
    return holds(values)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_map(part, change) for part in value)
    return value


def _map_values(values: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {name: _map(value, change) for name, value in values.items()} if values else values


def _by_autograd() -> bool:
    """Whether an operation of the backward pass comes from torch's engine, not Python code."""
    if not in_backward():
        return False
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back  # type: ignore[assignment]
    # For CUDA the engine has its own thread, which has no Python frame.
    return frame is None or frame.f_globals.get("__name__") in _ENGINE


_BETWEEN = (__name__, *DISPATCHERS)
_ENGINE = ("torch.autograd", "torch.autograd.graph")

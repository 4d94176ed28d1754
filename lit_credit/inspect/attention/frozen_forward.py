"""Repeating a forward pass with everything frozen but sums and rearrangements of tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lit_credit.utils.nested import items_of, map_tensors

__all__ = ["FrozenForward", "plain_attention_path"]

_BOOKKEEPING = (
    # Sums and multiples.
    "add sub rsub mul multiply div true_divide neg sum mean nansum cumsum lerp addcmul subtract "
    "__add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ "
    "__truediv__ __itruediv__ __neg__ __pos__ add_ sub_ mul_ div_ neg_ copy_ zero_ fill_ "
    # The same numbers in another shape or order.
    "view view_as reshape reshape_as flatten unflatten ravel squeeze unsqueeze expand expand_as "
    "broadcast_to transpose swapaxes swapdims permute movedim moveaxis t "
    "chunk split tensor_split unbind narrow select index_select gather take_along_dim "
    "__getitem__ __setitem__ cat concat concatenate stack hstack vstack pad roll flip "
    "repeat tile repeat_interleave unfold diagonal where masked_fill masked_select "
    # The same tensor, elsewhere or of another type.
    "clone contiguous detach to type type_as float double half bfloat16 cpu cuda alias "
    "as_subclass requires_grad_ detach_ retain_grad __deepcopy__ __reduce_ex__ __get__ __set__ "
    # In eval mode, the identity.
    "dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout"
)
_LINEAR = frozenset(_BOOKKEEPING.split())
"""Torch functions that pass a change of a stream on as it is, or times a fixed number."""


class FrozenForward(TorchFunctionMode):
    """Record the results of a forward pass, and return the same results in every later one.

    Inside the first ``with`` everything runs as usual. Inside later ones, linear bookkeeping
    (additions, fixed multiples, views, copies) is computed again. Every other torch function, such
    as projections, convolutions, norms, attention and nonlinearities, returns its first result. So
    an addition to a stream reaches only the places to which the stream carries it directly.

    The forward pass must be the same each time, in eval mode and under ``no_grad``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tape: list[tuple[str, Any]] = []
        self._place = -1

    def __enter__(self) -> "FrozenForward":
        """Start from the beginning of the tape."""
        self._place = 0 if self._tape else -1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, or return its recorded result."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _LINEAR:
            return func(*args, **kwargs)
        if self._place < 0:
            result = func(*args, **kwargs)
            self._tape.append((name, map_tensors(result, _kept)))
            return result
        before = self._next(name)
        in_place = name.endswith("_") and not name.endswith("__")
        if isinstance(before, Tensor) and before.is_floating_point() and not in_place:
            return before.clone()
        return _with_tensors_of(func(*args, **kwargs), before, in_place)

    def _next(self, name: str) -> Any:
        place, self._place = self._place, self._place + 1
        if place >= len(self._tape) or self._tape[place][0] != name:
            raise MisconfigurationException(
                "the forward pass takes another way each time that it runs in eval mode, so what "
                "its attention adds to the stream cannot be followed."
            )
        return self._tape[place][1]


def _kept(x: Tensor) -> Tensor:
    """A copy, since later code may work in place; whole numbers need no copy."""
    return x.detach().clone() if x.is_floating_point() else x


def _with_tensors_of(result: Any, before: Any, in_place: bool) -> Any:
    if isinstance(result, Tensor):
        if not result.is_floating_point():
            return result
        return result.copy_(before) if in_place else before.clone()
    parts = zip(items_of(result), items_of(before), strict=True)
    changed = [(key, _with_tensors_of(a, b, in_place)) for (key, a), (_, b) in parts]
    if not changed:
        return result
    made = [part for _, part in changed]
    return {**dict(changed)} if isinstance(result, dict) else type(result)(made)


@contextmanager
def plain_attention_path() -> Iterator[None]:
    """Switch off the fused inference path of torch's encoders, which bypasses their submodules."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


Run = Callable[[], object]
"""One forward pass of the module, on few rows."""

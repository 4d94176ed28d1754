"""Recording the attention weights of any net during its forward pass."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import get_ident, local
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.inspect.activation_checkpoints import is_second_run
from lit_credit.inspect.attention.functions import listened_to
from lit_credit.protocols import LayerProtocol, asked
from lit_credit.utils.compiled import named_submodules

__all__ = ["AttentionCall", "looks_like_attention", "number_of_heads", "recorded_attention"]

# Legend: N samples, H heads, T queries, S keys, d features of a head, A attention weights.

_HEAD_NAMES = ("num_heads", "n_heads", "n_head", "nhead", "num_attention_heads", "heads", "nheads")


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention of a forward pass.

    Attributes:
        module: name of the innermost submodule that was running.
        weights: A, (N, H, T, S), before dropout and part of the graph:
            ``torch.autograd.grad(loss, call.weights)`` is dL/dA.
        allowed: bool, of A's shape, True where a query may see a key; None without a mask. A key
            is masked by False, by -inf, or by about the lowest number of the dtype.
        query: (N, H, T, d); query, key and value are None if only A was seen.
        key: (N, H_kv, S, d), with H_kv < H where ``enable_gqa`` lets heads share keys.
        value: (N, H_kv, S, d_v).
    """

    module: str
    weights: Tensor
    allowed: Tensor | None = None
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None


@contextmanager
def recorded_attention(
    module: nn.Module, replace: Callable[[int, Tensor], Tensor] | None = None
) -> Iterator[list[AttentionCall]]:
    """Record every attention that ``module`` or a submodule of it computes inside the ``with``.

    Three kinds of attention are seen:

    - torch's ``scaled_dot_product_attention``, under whatever name a file imported it;
    - a softmax over the last of three or more dimensions, inside a submodule whose class or
      attribute is called attention or attn;
    - a submodule with a true attribute ``returns_attention``, whose
      ``forward(scores, allowed=None)`` returns A of any kind.

    A softmax of three dimensions is taken for (N H, T, S) if the submodule, or its ``config``, has
    ``num_heads``, ``n_heads`` or the like, else for one head. Outputs and gradients do not change,
    except by rounding (and by the draw of a dropout inside a fused CUDA kernel). If nothing was
    seen, :func:`lit_credit.inspect.attention.unseen.check_recorded` says why.

    As in torch, a fully masked row has A = 0 and no gradient in ``scaled_dot_product_attention``,
    and is NaN in a softmax. If nothing before A requires a gradient and gradients are enabled, A is
    a leaf that requires one.

    A block under ``torch.utils.checkpoint`` runs again in the backward pass. That second run is
    not recorded, but it must take the same path: call ``torch.autograd.grad`` inside the ``with``.
    Computations of other threads are not recorded and do not change.

    Args:
        module: the module that will be run inside. It runs without ``torch.compile`` and without
            the fused inference path of torch's encoders, because both hide attention; that path
            alone writes zeros at padded positions.
        replace: ``replace(index, A)`` returns the A that the module goes on with at the call of
            that index; with None, the module keeps its own A.

    Yields:
        A list of calls that fills as the forward pass runs, in its order.

    Example:
        >>> attention = nn.MultiheadAttention(8, num_heads=2)
        >>> x = torch.ones(4, 1, 8)
        >>> with recorded_attention(attention) as calls:
        ...     output, _ = attention(x, x, x)
        >>> calls[0].weights[0, 0, 0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    recorder = _Recorder(replace)
    with ExitStack() as undo:
        undo.enter_context(listened_to(recorder))
        for name, child in named_submodules(module):
            if not isinstance(child, nn.Softmax):  # belongs to the submodule that calls it
                recorder.attach(_Place(name, child), undo)
        yield recorder.calls


def looks_like_attention(name: str, module: nn.Module) -> bool:
    """Whether a submodule's class, or its attribute in its parent, is called attention or attn."""
    attribute = name.rstrip(".0123456789").rpartition(".")[2]  # a list's item has the list's name
    words = f"{attribute} {type(module).__name__}".lower()
    return "attn" in words or "attention" in words


class _Place(NamedTuple):
    """A submodule and its name."""

    name: str
    module: nn.Module

    @property
    def returns_attention(self) -> bool:
        return bool(asked(self.module, LayerProtocol.returns_attention, False))


class _Recorder:
    """Tracks the running submodules, the innermost last, and records the calls."""

    def __init__(self, replace: Callable[[int, Tensor], Tensor] | None) -> None:
        self.calls: list[AttentionCall] = []
        self.replace = replace
        self._thread = get_ident()
        self._in_thread = local()

    @property
    def running(self) -> list[_Place]:
        """The submodules that run in this thread."""
        if not hasattr(self._in_thread, "running"):
            self._in_thread.running = []
        running: list[_Place] = self._in_thread.running
        return running

    def listens(self) -> bool:
        """Whether this is the thread of the ``with``, or a thread of a backward pass.

        In a thread of autograd for CUDA, a checkpointed block may run again.
        """
        return get_ident() == self._thread or is_second_run()

    def attach(self, place: _Place, undo: ExitStack) -> None:
        """Follow a submodule's forward until ``undo`` is closed."""

        def enter(*_: Any) -> None:
            if self.listens():
                self.running.append(place)

        def leave(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            # If another hook raised before `enter` ran, there is nothing to leave.
            if self.running and self.running[-1] is place:
                self.running.pop()
                if place.returns_attention and output is not None:
                    allowed = args[1] if len(args) > 1 else kwargs.get("allowed")
                    return self._keep(place, _checked(place, args, output), allowed)
            return None

        before = place.module.register_forward_pre_hook(enter, prepend=True)
        # Called after an exception too, else later calls would have wrong names.
        after = place.module.register_forward_hook(leave, with_kwargs=True, always_call=True)
        undo.callback(before.remove)
        undo.callback(after.remove)

    def hears(self, *, softmax: bool) -> bool:
        """Whether an attention (or a softmax) that runs now is one of the module's."""
        if not self.running or any(place.returns_attention for place in self.running):
            return False
        return not softmax or any(looks_like_attention(*place) for place in self.running)

    def record(
        self, weights: Tensor, allowed: Tensor | None, *qkv: Tensor, folded: bool = False
    ) -> Tensor:
        """Keep A (..., T, S) of the submodule that runs; return the tensor to go on with."""
        place = self.running[-1]
        folded = folded or weights.dim() == 3
        heads = _folded_heads(place.module, len(weights)) if folded else 1
        return self._keep(place, weights, allowed, *qkv, heads=heads)

    def _keep(
        self, place: _Place, weights: Tensor, allowed: Tensor | None, *qkv: Tensor, heads: int = 1
    ) -> Tensor:
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights = weights.detach().requires_grad_()
        shown = _with_heads(weights, heads)
        if allowed is not None:
            allowed = _with_heads(allowed.expand(weights.shape), heads)
        if not is_second_run():
            if self.replace is not None:
                shown = self.replace(len(self.calls), shown)
            call = AttentionCall(place.name, shown, allowed, *(_with_heads(x, heads) for x in qkv))
            self.calls.append(call)
        # A copy: later code may work in place.
        return shown.clone().reshape(weights.shape)


def _checked(place: _Place, args: tuple[Any, ...], output: Any) -> Tensor:
    """The output, checked to have the shape of the incoming scores."""
    shapes = [
        tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in (*args, output)
    ]
    if not isinstance(output, Tensor) or shapes[0] != shapes[-1]:
        raise MisconfigurationException(
            f"{place.name!r} ({type(place.module).__name__}) has `returns_attention`, so its "
            f"`forward(scores, allowed=None)` must return A in the shape of the scores, "
            f"{shapes[0]}, but it returned {shapes[-1]}. Set `returns_attention` on the submodule "
            "that computes A alone."
        )
    return output


def number_of_heads(module: nn.Module) -> int | None:
    """H from an attribute of the submodule or of its ``config``; None if there is none."""
    for owner in (module, getattr(module, "config", None)):
        for name in _HEAD_NAMES:
            heads = getattr(owner, name, None)
            if isinstance(heads, int) and not isinstance(heads, bool) and heads > 0:
                return heads
    return None


def _folded_heads(module: nn.Module, rows: int) -> int:
    """H if N and H are folded into one dimension of ``rows`` = N H rows."""
    heads = number_of_heads(module) or 1
    return heads if rows % heads == 0 else 1


def _with_heads(x: Tensor, heads: int = 1) -> Tensor:
    """Reshape (N H, T, S), (T, S) or (..., H, T, S) to (N, H, T, S)."""
    if x.dim() < 4:
        return torch.unflatten(x if x.dim() == 3 else x[None], 0, (-1, heads))
    return x.flatten(0, -4)

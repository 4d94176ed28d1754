"""A transformer of some sixty parameters that adds two numbers."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.studies.addition.model_fast import adder_attention, fast_logits
from lit_credit.studies.addition.model_parts import (
    WIDTH,
    AdderAttention,
    AdderEmbedding,
    AdderFFN,
)
from lit_credit.studies.addition.parts import AdderParts
from lit_credit.utils.ranges import check_sizes

__all__ = ["AdderBlock", "MicroAdder"]


class AdderBlock(nn.Module):
    """Attention, then an FFN, each on the normed stream, which it adds to."""

    def __init__(
        self, norm1: nn.RMSNorm, attention: AdderAttention, norm2: nn.RMSNorm, ffn: AdderFFN
    ) -> None:
        super().__init__()
        self.norm1 = norm1
        self.attention = attention
        self.norm2 = norm2
        self.ffn = ffn

    def forward(self, h: Tensor) -> Tensor:
        """Map the stream (N, T, 5) to the stream."""
        h = h + self.attention(self.norm1(h))
        added: Tensor = self.ffn(self.norm2(h))
        return h + added


class MicroAdder(nn.Module):
    """Logits for the next digit of sums written out, lowest digit first.

    One layer with one head on a stream of two features of the digit and three of the position.
    Queries and keys read the position alone, values the digit alone. All points of the digits have
    one norm, so the attention is the same for every sum.

    Args:
        digits: of each number that is added.
        qk_width: features of queries and keys.
        positions: ``frozen`` or ``learned`` spiral.
        norm: the gains of the three norms: ``frozen`` at 1 + 3.5 sin(2 pi j / 10), ``shared`` and
            learned, or learned each on its own (``separate``).
        output: of the attention: ``rank_one``, or ``full``, a free (5, 2) matrix.
        hidden: hidden units of the FFN.
        ffn_bias: give the hidden units a bias.
        tie_ffn: the second map of the FFN is the transpose of the readout's; needs ``hidden`` 2.
        fast: compute attention once a batch, and the rows that predict the answer only, with the
            batch as the last dimension; the logits are then (N, digits + 2, 10). Where someone
            looks inside (a hook on a submodule, a unit with a replaced forward, a feedback layer),
            the plain pass runs, which answers at all positions.
        compile: compile the fast pass with ``torch.compile``.

    Raises:
        ValueError: if an argument has no meaning.

    Example:
        >>> net = MicroAdder(norm="shared")
        >>> sum(p.numel() for p in net.parameters() if p.requires_grad)
        67
        >>> net(torch.zeros(3, 33, dtype=torch.long)).shape
        torch.Size([3, 12, 10])
    """

    def __init__(
        self,
        digits: int = 10,
        qk_width: int = 4,
        positions: Literal["frozen", "learned"] = "frozen",
        norm: Literal["frozen", "shared", "separate"] = "frozen",
        output: Literal["rank_one", "full"] = "rank_one",
        hidden: int = 2,
        ffn_bias: bool = False,
        tie_ffn: bool = False,
        fast: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        _check(positions=positions, norm=norm, output=output)
        if tie_ffn and hidden != 2:
            raise ValueError(f"`hidden` is {hidden}, expected 2 where `tie_ffn` is true.")
        check_sizes(qk_width=qk_width, hidden=hidden)
        if qk_width < 2:
            raise ValueError(f"`qk_width` is {qk_width}, expected at least 2, a pair to turn.")
        self.layout = AdditionLayout(digits)
        self.fast = fast
        self.head = nn.Linear(WIDTH, 2, bias=False)
        self.embed = AdderEmbedding(self.layout, positions == "learned")
        norm1, norm2, self.norm = _norms(norm)
        self.block = AdderBlock(
            norm1,
            AdderAttention(qk_width, output, self.head),
            norm2,
            AdderFFN(hidden, ffn_bias, self.head if tie_ffn else None),
        )
        self._fast_logits = torch.compile(fast_logits) if compile else fast_logits

    @property
    def credit_units(self) -> list[str]:
        """The submodules that receive one credit signal each, in forward order."""
        return ["embed", "block"]

    @property
    def readout(self) -> list[str]:
        """The submodules after the last unit; they learn from the true gradient."""
        return ["norm", "head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are h_0 and h_1."""
        return ["block", "norm"]

    def forward(self, tokens: Tensor) -> Tensor:
        """Map digits (N, T) to logits (N, T, 10), or to those of the answer's rows if fast.

        Raises:
            ValueError: if sequences are longer than those of the layout.
        """
        if tokens.shape[1] > self.layout.inputs:
            raise ValueError(
                f"`digits` of the net is {self.layout.digits}, which makes {self.layout.inputs} "
                f"inputs, but a sequence has {tokens.shape[1]}. Make it that of the data."
            )
        if self.fast and tokens.shape[1] == self.layout.inputs and not _watched(self):
            logits: Tensor = self._fast_logits(self, tokens)
            return logits
        h = self.embed(tokens)  # (N, T, 5)
        h = self.block(h)
        scores: Tensor = self.head(self.norm(h)) @ self.embed.digits.table().T
        return scores

    def logits_with(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """The logits (N, R, 10) of the answer if attention were that, (R, T)."""
        return fast_logits(self, tokens, attention)

    def parts(self) -> AdderParts:
        """What there is to see in the net."""
        attention = self.block.attention
        a, b = attention.factors()
        gains: dict[str, Tensor] = {}
        norms = {"block.norm1": self.block.norm1, "block.norm2": self.block.norm2}
        for name, norm in {**norms, "norm": self.norm}.items():
            if all(norm.weight is not gain for gain in gains.values()):
                gains[name] = norm.weight
        queries, keys, weights = adder_attention(self)
        return AdderParts(
            digits=self.embed.digits.table(),
            queries=queries,
            keys=keys,
            attention=weights,
            output=attention.matrix() * self.block.norm1.weight[:2],
            read=a,
            write=b,
            gains=gains,
        )


def _watched(net: nn.Module) -> bool:
    """Whether a submodule's own call matters: it has hooks, or its pass is not the plain one."""
    return any(
        child._forward_hooks
        or child._forward_pre_hooks
        or child._backward_hooks
        or child._backward_pre_hooks
        or "forward" in vars(child)
        or getattr(child, "feedback_backward", False)
        for child in net.modules()
        if child is not net
    )


def _norms(kind: str) -> tuple[nn.RMSNorm, nn.RMSNorm, nn.RMSNorm]:
    first, second, third = (nn.RMSNorm(WIDTH, eps=1e-5) for _ in range(3))
    if kind != "separate":
        # One parameter in three modules, so that each place of the net has a name.
        second.weight = third.weight = first.weight
    if kind == "frozen":
        gain = 1 + 3.5 * torch.sin(2 * math.pi / 10 * torch.arange(WIDTH))
        first.weight.requires_grad_(False).copy_(gain)
    return first, second, third


def _check(**arguments: str) -> None:
    known = {
        "positions": ("frozen", "learned"),
        "norm": ("frozen", "shared", "separate"),
        "output": ("rank_one", "full"),
    }
    for name, value in arguments.items():
        if value not in known[name]:
            raise ValueError(f"`{name}` is {value!r}, expected one of {', '.join(known[name])}.")

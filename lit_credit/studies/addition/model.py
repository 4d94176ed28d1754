"""A transformer of some sixty parameters that adds two numbers."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from lit_credit.protocols import LayerProtocol, asked
from lit_credit.studies.addition.fast_pass import adder_attention, fast_logits
from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.utils.private_names import has_hooks
from lit_credit.utils.ranges import check_choice, check_sizes

__all__ = [
    "AdderAttention",
    "AdderBlock",
    "AdderEmbedding",
    "AdderFFN",
    "AdderParts",
    "DigitCircle",
    "MicroAdder",
    "SpiralPositions",
]


TOKEN, POSITION = 2, 3
"""Features of the stream: those of the digit, and those of the position."""
WIDTH = TOKEN + POSITION


class DigitCircle(nn.Module):
    """Ten points of an arc: E[d] = A (cos(s + d k), sin(s + d k)), with A, s and k learned."""

    def __init__(self) -> None:
        super().__init__()
        self.radius, self.start, self.step = (
            nn.Parameter(torch.tensor(value)) for value in (2.5, -1.2, 0.29)
        )

    def points(self, digits: Tensor) -> Tensor:
        """E of digits that are floats of any shape (...), (2, ...)."""
        angle = self.start + self.step * digits
        return self.radius * torch.stack([angle.cos(), angle.sin()])

    def table(self) -> Tensor:
        """E, (10, 2)."""
        return self.points(torch.arange(10).to(self.step)).T

    def forward(self, tokens: Tensor) -> Tensor:
        """Map digits (N, T) to (N, T, 2)."""
        return nn.functional.embedding(tokens, self.table())


class SpiralPositions(nn.Module):
    """Vectors of the positions: column i of X, Y and Z shares a point of a spiral.

    The point is (r cos(2 pi i / 10 + phi), r sin(2 pi i / 10 + phi), c i + c_0) with r = 3.5, c =
    .15 and the others 0. "+" has the zero vector; "=" and the highest digit of Z have learned ones.

    Args:
        layout: names the positions.
        learned: whether r, phi, c and c_0 are learned.
    """

    spiral: Tensor

    def __init__(self, layout: AdditionLayout, learned: bool) -> None:
        super().__init__()
        self.digits = layout.digits
        spiral = torch.tensor([3.5, 0.0, 0.15, 0.0])
        if learned:
            self.spiral = nn.Parameter(spiral)
        else:
            self.register_buffer("spiral", spiral)
        self.equals, self.last = (nn.Parameter(0.02 * torch.randn(POSITION)) for _ in range(2))

    def forward(self) -> Tensor:
        """The vectors of all inputs, (T, 3)."""
        radius, phase, slope, offset = self.spiral
        i = torch.arange(self.digits).to(self.spiral)
        angle = 2 * math.pi / 10 * i + phase
        column = torch.stack(
            [radius * angle.cos(), radius * angle.sin(), slope * i + offset], 1
        )  # (digits, 3)
        plus = torch.zeros_like(column[:1])
        return torch.cat([column, plus, column, self.equals[None], column, self.last[None]])


class AdderEmbedding(nn.Module):
    """The stream's first value: two features of the digit beside three of the position.

    Args:
        layout: names the positions.
        learned_positions: whether the spiral is learned.
    """

    def __init__(self, layout: AdditionLayout, learned_positions: bool) -> None:
        super().__init__()
        self.digits = DigitCircle()
        self.positions = SpiralPositions(layout, learned_positions)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map digits (N, T) to (N, T, 5)."""
        digits, positions = self.digits(tokens), self.positions()[: tokens.shape[1]]
        return torch.cat([digits, positions.expand(len(digits), -1, -1)], -1)


class AdderAttention(nn.Module):
    """One causal head, whose queries and keys read the position and whose values read the digit.

    Queries are the keys with each pair of features turned by one learned angle; without it the
    attention of i to j would be that of j to i.

    Args:
        qk_width: features of queries and keys.
        output: ``rank_one`` maps the digit part through the readout's matrix H (2, 5) and then
            by a b^T, a for what is read in the space of values, b for what is written to the
            stream; ``full`` by a matrix of its own.
        head: the readout, nn.Linear(5, 2), whose weight is H.
    """

    def __init__(self, qk_width: int, output: Literal["rank_one", "full"], head: nn.Linear) -> None:
        super().__init__()
        self.qk = nn.Linear(POSITION, qk_width, bias=False)
        self.angle = nn.Parameter(torch.zeros(()))
        self.head = head
        self.rank_one = output == "rank_one"
        if self.rank_one:
            a, b = nn.Linear(WIDTH, 1, bias=False), nn.Linear(1, WIDTH, bias=False)
            nn.init.zeros_(b.weight)
            self.output: nn.Module = nn.Sequential(OrderedDict(a=a, b=b))
        else:
            self.output = nn.Linear(TOKEN, WIDTH, bias=False)

    def queries_and_keys(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Of the normed stream's position part (..., T, 3), both (..., T, qk_width)."""
        k: Tensor = self.qk(z)
        pairs = k.shape[-1] // 2
        even, odd = k[..., : 2 * pairs : 2], k[..., 1 : 2 * pairs : 2]
        cos, sin = self.angle.cos(), self.angle.sin()
        turned = torch.stack([cos * even - sin * odd, sin * even + cos * odd], -1).flatten(-2)
        return torch.cat([turned, k[..., 2 * pairs :]], -1), k

    def weights(self, q: Tensor, k: Tensor, rows: slice = slice(None)) -> Tensor:
        """The attention of the queries at ``rows`` to all keys: (..., R, T)."""
        scores = q[..., rows, :] @ k.mT * k.shape[-1] ** -0.5
        allowed = torch.ones(k.shape[-2], k.shape[-2], device=k.device).tril().bool()[rows]
        weights: Tensor = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        return weights

    def forward(self, z: Tensor) -> Tensor:
        """Map the normed stream (N, T, 5) to what is added to the stream."""
        q, k = self.queries_and_keys(z[..., TOKEN:])
        mixed = self.weights(q, k) @ z[..., :TOKEN]  # (N, T, 2)
        if self.rank_one:
            mixed = mixed @ self.head.weight
        added: Tensor = self.output(mixed)
        return added

    def matrix(self) -> Tensor:
        """The map from the mixed digit parts to the stream, (5, 2)."""
        a, b = self.factors()
        if a is None or b is None:
            return cast(nn.Linear, self.output).weight
        product: Tensor = b[:, None] @ (a[None] @ self.head.weight.T)
        return product

    def factors(self) -> tuple[Tensor | None, Tensor | None]:
        """The a (5) and the b (5) of an output of rank one; None and None of a full one."""
        if not self.rank_one:
            return None, None
        a, b = (cast(nn.Linear, layer).weight for layer in cast(nn.Sequential, self.output))
        return a[0], b[:, 0]


class AdderFFN(nn.Module):
    """Two linear maps with an exact GELU between.

    Args:
        hidden: hidden units.
        bias: of the hidden units.
        head: takes the place of the second map, transposed, if there is one; nn.Linear(5, 2).
    """

    def __init__(self, hidden: int, bias: bool, head: nn.Linear | None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, hidden, bias=bias)
        self.gelu = nn.GELU()
        self.head = head
        self.fc2 = nn.Linear(hidden, WIDTH, bias=False) if head is None else None

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., 5) to (..., 5)."""
        hidden = self.gelu(self.fc1(z))
        added: Tensor = hidden @ self.matrix().T if self.fc2 is None else self.fc2(hidden)
        return added

    def matrix(self) -> Tensor:
        """The weight of the second map, (5, hidden)."""
        return cast(nn.Linear, self.head).weight.T if self.fc2 is None else self.fc2.weight


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


class AdderParts(NamedTuple):
    """What :class:`AdderAnatomy` looks at in a net of one layer and one head that adds.

    The net reads T inputs, named by :class:`AdditionLayout`; the last R of them predict the answer.
    Its stream has 5 features, 2 of the digit and 3 of the position.
    """

    digits: Tensor
    """Points of the digits, (10, 2)."""
    queries: Tensor
    """Queries of the normed positions, (T, qk_width)."""
    keys: Tensor
    """Keys of the normed positions, (T, qk_width)."""
    attention: Tensor
    """Attention of the rows that predict the answer, (R, T)."""
    output: Tensor
    """Map from a mean of the digits' points to what attention adds, gain included, (5, 2)."""
    read: Tensor | None
    """a (5) of an attention output b a^T, in the space of values; None for an output of full rank.
    """
    write: Tensor | None
    """b (5) of that output, in the space of the stream."""
    gains: Mapping[str, Tensor]
    """Name of a norm to its gain (5); norms that share one have one entry."""


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
        check_choice(["frozen", "learned"], positions=positions)
        check_choice(["frozen", "shared", "separate"], norm=norm)
        check_choice(["rank_one", "full"], output=output)
        if tie_ffn and hidden != 2:
            raise ValueError(f"`hidden` is {hidden}, expected 2 where `tie_ffn` is true.")
        check_sizes(2, qk_width=qk_width)  # a pair to turn
        check_sizes(hidden=hidden)
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
        """What :class:`AdderAnatomy` looks at."""
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
        has_hooks(child)
        or "forward" in vars(child)
        or asked(child, LayerProtocol.feedback_backward, False)
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

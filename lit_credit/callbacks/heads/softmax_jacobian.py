"""The diagnostic ``SoftmaxJacobian``: how much of the softmax's backward pass is local."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import gradients_of
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.heads.attention import (
    attention_by_label,
    blocks_of,
    head_tag,
    seen_as_softmax,
    softmax_or_nan,
)
from lit_credit.callbacks.heads.attention_proof import prove_attention
from lit_credit.callbacks.heads.softmax_figure import softmax_figure
from lit_credit.callbacks.heads.softmax_reading import by_head, softmax_reading
from lit_credit.functional import (
    EnergySums,
    SoftmaxGradients,
    attention_entropy,
    energy_shares,
    energy_sums,
    gradient_cosine,
    mean_attention,
    softmax_cosines,
    softmax_gradients,
)
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.attention.recording import recorded_attention
from lit_credit.inspect.exact_backward import exact_backward
from lit_credit.protocols import LayerProtocol, RuleProtocol, asked, is_rule, offers
from lit_credit.runs.history import Row
from lit_credit.runs.table import TableRow

__all__ = ["SoftmaxJacobian"]

_ENERGIES, _SOFTMAX = "energies", "softmax"


class _Head(NamedTuple):
    """One attention of the forward pass, and the credit that reached it."""

    attention: Tensor
    credit: Tensor
    allowed: Tensor | None

    def some(self, rows: slice) -> "_Head":
        """The same for some of the samples."""
        allowed = None if self.allowed is None else self.allowed[rows]
        return _Head(self.attention[rows], self.credit[rows], allowed)


class SoftmaxJacobian(ProbeDiagnostic):
    """Could the backward pass of the attention's softmax do without its lateral sum?

    The gradient at the scores is J g with J = diag(A) - A A^T for every query's attention A and
    the credit g = dL/dA. It is split into the diagonal (local) part A (1 - A) g and the rest, the
    lateral sum; see :func:`lit_credit.functional.softmax_gradients`. g is the credit that the rule
    itself delivers at A: the gradient of the module's ``surrogate(batch)``, or of its loss if it
    has no surrogate, with active feedback layers. Logs for every attention module and head:

    - ``jacobian/r_diag/<module>/H00``, ``r_off``, ``r_cross``: energies of the two parts and their
      product, divided by the energy of J g; each is summed over the probe before the division. The
      three sum to 1;
    - ``jacobian/cosine_diag/..``, ``cosine_ste``: cosine of J g with its diagonal part and with g
      itself (straight-through, on allowed positions), mean over samples; ``.._sd`` is their spread;
    - ``jacobian/entropy/..`` (nats), ``effective_keys`` (exp of the entropy, query by query),
      ``mean_attention`` (over allowed positions): means over samples and queries;
    - ``jacobian/exact_r_diag/..`` and so on: the first seven under the exact gradient;
      ``jacobian/credit_cosine/..``: the cosine of the two credits g, mean over samples. They are
      left out if the module's own credit is exact, as in backpropagation without feedback layers.

    At the end of fit it writes all measurements to ``<log_dir>/softmax_jacobian.csv``, a figure
    of the last measurement, and a reading of it in two sentences.

    Masked positions and queries without a key are not counted. If the attention is not a softmax
    (its rows do not sum to 1, as in sigmoid attention), all values are NaN; values without a
    gradient are NaN too. Costs one forward and backward on ``n_samples`` rows, twice if the exact
    gradient differs, and holds A and dL/dA of all modules for the rows of a chunk: 8 n H T S bytes
    each in float32. Copies in float64 are made for some samples of one module at a time. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments; ``units`` are the attention
    modules, None takes all that are seen; ``n_samples`` is 16 by default.

    Raises:
        ValueError: if one of ``units`` matches no attention that was seen.
        MisconfigurationException: before the first step, if no attention is seen, or if its axes
            are not heads, queries and keys.

    Example::

        trainer = Trainer(callbacks=[SoftmaxJacobian(every_n_steps=100)])
    """

    name = "softmax_jacobian"
    section = "jacobian"
    charts = ("r_diag", "r_off", "cosine_diag", "cosine_ste", "entropy", "credit_cosine")
    headline = (
        Headline(
            "r_off",
            layers="mean",
            form=".3f",
            panel=Panel("Lateral part of the credit", "share, mean over heads", reach=(0, 1)),
        ),
    )
    steps_of_a_batch = 1.6
    default_n_samples = 16

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check that the axes of A are heads, queries and keys."""
        return prove_attention(self, chunk.module, chunk.few().forward, self.units).proved

    def update(self, chunk: Chunk) -> None:
        """Add the quantities of a chunk under its own and the exact credit, block by block."""
        module = chunk.module
        own, exact = self._captured(module, chunk.surrogate), {}
        if _differs_from_exact(module):
            with exact_backward(module):
                exact = self._captured(module, chunk.loss)
        for label, head in own.items():
            self.gathered.add(f"{_SOFTMAX}/{label}", seen_as_softmax(head.attention))
            for some in blocks_of(head.attention):
                true = exact[label].some(some) if label in exact else None
                for quantity, values in _measured(head.some(some), true).items():
                    self.gathered.add(f"{quantity}/{label}", values)

    def compute(self) -> dict[str, float]:
        """``<quantity>/<module>/H..``."""
        values: dict[str, float] = {}
        for tag, samples in self.gathered.items():
            quantity, _, label = tag.partition("/")
            if quantity == _SOFTMAX:
                continue
            sound = self.gathered[f"{_SOFTMAX}/{label}"].all(0).tolist()
            for name, numbers in _reduced(quantity, samples).items():
                for index, number in enumerate(numbers):
                    known = number if sound[index] else math.nan
                    values[f"{name}/{label}/{head_tag(index)}"] = known
        return values

    def _captured(self, module: LightningModule, scalar: Callable[[], Tensor]) -> dict[str, _Head]:
        # A checkpointed unit runs again in the backward pass, and must run in the same way as in
        # the forward pass. So the recording stays active.
        with recorded_attention(module) as calls:
            loss = scalar()
            seen = attention_by_label(module, calls, self.units)
            credits = gradients_of(loss, [call.weights for call in seen.values()])
        return {
            label: _Head(softmax_or_nan(call.weights, call.allowed), credit, call.allowed)
            for (label, call), credit in zip(seen.items(), credits, strict=True)
        }

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The lateral sum and what is left without it at the last measurement, head by head."""
        title = f"Softmax backward, own credit, step {rows[-1]['step']}"
        return softmax_figure(by_head(rows[-1], section), title=title)

    def table(self, rows: Sequence[Row], section: str) -> list[TableRow]:
        """A line for every measurement, module and head."""
        return [
            {"module": label, "head": head, "step": row["step"], **values}
            for row in rows
            for (label, head), values in by_head(row, section).items()
        ]

    def reading(self, rows: Sequence[Row], section: str) -> str | None:
        """Ranges over heads at the last measurement."""
        return softmax_reading(rows[-1], section)


def _differs_from_exact(module: LightningModule) -> bool:
    """Whether the module's own credit may differ from the exact gradient."""
    inexact = is_rule(module) and not asked(module, RuleProtocol.exact_credit, False)
    return inexact or any(offers(c, LayerProtocol.feedback_backward) for c in module.modules())


def _measured(head: _Head, exact: _Head | None) -> dict[str, Tensor]:
    """All quantities of some samples of one attention module, (N, H, ...); sums are (1, H, 5)."""
    parts = softmax_gradients(*head)
    values = _decomposed(parts)
    # It also gives the number of keys of each query; see `lit_credit.functional.effective_keys`.
    values["entropy"] = attention_entropy(head.attention, head.allowed)
    values["mean_attention"] = mean_attention(head.attention, head.allowed)
    if exact is not None:
        true = softmax_gradients(*exact)
        values |= {f"exact_{name}": numbers for name, numbers in _decomposed(true).items()}
        # The credits themselves, on allowed positions.
        one, two = (p.straight_through.flatten(0, 1) for p in (parts, true))
        values["credit_cosine"] = gradient_cosine(one, two).reshape(parts.full.shape[:2])
    return values


def _decomposed(parts: SoftmaxGradients) -> dict[str, Tensor]:
    sums = energy_sums(parts, dims=(0, -2, -1))
    return {_ENERGIES: torch.stack(sums, -1)[None], **softmax_cosines(parts)._asdict()}


def _reduced(quantity: str, samples: Tensor) -> dict[str, list[float]]:
    """Reduce a quantity over all samples to one number per head."""
    if quantity.endswith(_ENERGIES):
        prefix = quantity.removesuffix(_ENERGIES)
        shares = energy_shares([EnergySums(*sums.unbind(-1)) for sums in samples])
        return {f"{prefix}{name}": r.tolist() for name, r in shares._asdict().items()}
    found = {quantity: _means(samples)}
    if quantity == "entropy":
        found["effective_keys"] = _means(samples.exp())
    elif quantity.endswith(("cosine_diag", "cosine_ste")):
        found[f"{quantity}_sd"] = [over_samples(head).sd for head in samples.T]
    return found


def _means(values: Tensor) -> list[float]:
    """Mean of (N, H, ...) for each head, over all defined values."""
    return [over_samples(head.flatten()).mean for head in values.transpose(0, 1)]

"""How much of the softmax's backward is local, head by head."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.attention import attention_by_label, head_tag, softmax_or_nan
from lit_credit.callbacks.attention_proof import prove_attention
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.points import gradients_of
from lit_credit.callbacks.samples import over_samples
from lit_credit.callbacks.softmax_reading import by_head, softmax_reading
from lit_credit.functional import (
    SoftmaxGradients,
    attention_entropy,
    gradient_cosine,
    mean_attention,
    softmax_cosines,
    softmax_energies,
    softmax_gradients,
)
from lit_credit.plotting import HeadPanel, head_heatmaps
from lit_credit.utils.attention import recorded_attention
from lit_credit.utils.exact_backward import exact_backward
from lit_credit.utils.history import Row
from lit_credit.utils.table import TableRow

__all__ = ["SoftmaxJacobian"]

_PANELS = {
    "r_diag": HeadPanel("energy of diagonal, r_diag", at_least=1.0),
    "r_off": HeadPanel("energy of lateral sum, r_off", at_least=1.0),
    "cosine_diag": HeadPanel("cosine of diagonal", signed=True),
    "cosine_ste": HeadPanel("cosine of straight-through", signed=True),
    "entropy": HeadPanel("entropy of attention, nats"),
}


class _Head(NamedTuple):
    """One attention of the forward pass, and the credit that reached it."""

    attention: Tensor
    credit: Tensor
    allowed: Tensor | None


class SoftmaxJacobian(ProbeDiagnostic):
    """Could the backward pass of the attention's softmax do without its lateral sum?

    The gradient at the scores is J g with J = diag(A) - A A^T for every query's attention A and
    the credit g = dL/dA. It is split into the diagonal (local) part A (1 - A) g and the rest, the
    lateral sum; see :func:`lit_credit.functional.softmax_gradients`. g is what the rule itself
    delivers at A: the gradient of the module's ``surrogate(batch)``, or of its loss where it has
    none, with feedback layers at work. Logs for every attention module and head:

    - ``jacobian/r_diag/<module>/H00``, ``r_off``, ``r_cross``: energies of the two parts and their
      product over that of J g, summed over the probe before they are divided; they sum to 1;
    - ``jacobian/cosine_diag/..``, ``cosine_ste``: cosine of J g with its diagonal part and with g
      itself (straight-through, on allowed positions), mean over samples; ``.._sd`` is their spread;
    - ``jacobian/entropy/..`` (nats), ``effective_keys`` (exp of the entropy, query by query),
      ``mean_attention`` (over allowed positions): means over samples and queries;
    - ``jacobian/exact_r_diag/..`` and so on, the first seven under the exact gradient, and
      ``jacobian/credit_cosine/..``, that of the two credits g, mean over samples; not where the
      module's own credit is the exact one: under backpropagation without feedback layers.

    At the end of fit it writes all measurements to ``<log_dir>/softmax_jacobian.csv``, a heat map
    of the last one, and a reading of it in two sentences.

    Masked positions and queries without a key count nowhere. Where attention is no softmax (its
    rows do not sum to 1, as those of sigmoid attention) everything is NaN, and so is what has no
    gradient. Costs one forward and backward on ``n_samples`` rows, twice where there is an exact
    gradient apart, and holds A and dL/dA of all modules: 8 n H T S bytes each in float32, and for
    one module at a time about ten times that, in float64. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments; ``units`` are the attention
    modules to look at, None takes all that are seen, and ``n_samples`` is 16 unless given.

    Raises:
        ValueError: if one of ``units`` matches no attention that was seen.
        MisconfigurationException: before the first step, if no attention is seen, or what was seen
            has other axes than heads, queries and keys.

    Example::

        trainer = Trainer(callbacks=[SoftmaxJacobian(every_n_steps=100)])
    """

    name = "softmax_jacobian"
    section = "jacobian"
    charts = ("r_diag", "r_off", "cosine_diag", "cosine_ste", "entropy", "credit_cosine")
    default_n_samples = 16

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """That A is heads, queries, keys."""
        return prove_attention(self, chunk.module, chunk.loss, self.units).proved

    def reset(self) -> None:
        """Forget the chunks."""
        super().reset()
        self._heads: list[dict[str, _Head]] = []
        self._exact: list[dict[str, _Head]] = []

    def update(self, chunk: Chunk) -> None:
        """Attention and credit of a chunk, own and exact."""
        module = chunk.module
        self._heads.append(self._captured(module, chunk.surrogate))
        if _differs_from_exact(module):
            with exact_backward(module):
                self._exact.append(self._captured(module, chunk.loss))

    def compute(self) -> dict[str, float]:
        """``<quantity>/<module>/H..``."""
        own, exact = _joined(self._heads), _joined(self._exact)
        values: dict[str, float] = {}
        for label, head in own.items():
            for quantity, numbers in _measured(head, exact.get(label)).items():
                for index, number in enumerate(numbers):
                    values[f"{quantity}/{label}/{head_tag(index)}"] = number
        return values

    def _captured(self, module: LightningModule, scalar: Callable[[], Tensor]) -> dict[str, _Head]:
        # A unit that is recomputed runs again in the backward pass, and must run in the same way.
        with recorded_attention(module) as calls:
            loss = scalar()
            seen = attention_by_label(module, calls, self.units)
            credits = gradients_of(loss, [call.weights for call in seen.values()])
        return {
            label: _Head(softmax_or_nan(call.weights, call.allowed), credit, call.allowed)
            for (label, call), credit in zip(seen.items(), credits, strict=True)
        }

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Heat maps of the last measurement, layer by head."""
        last = rows[-1]
        heads = by_head(last, section)
        maps = {}
        for quantity, panel in _PANELS.items():
            layers: dict[str, list[float]] = {}
            for (label, _), values in heads.items():
                layers.setdefault(label, []).append(values[quantity])
            maps[panel] = layers
        return head_heatmaps(
            maps, title=f"Parts of the softmax backward, own credit, step {last['step']}"
        )

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
    """Whether the module's own credit may be another than the exact gradient."""
    ruled = callable(getattr(module, "surrogate", None))
    inexact = ruled and not getattr(module, "exact_credit", False)
    return inexact or any(hasattr(child, "feedback_backward") for child in module.modules())


def _joined(parts: Sequence[dict[str, _Head]]) -> dict[str, _Head]:
    """What several chunks have brought of each attention, as one."""
    if len(parts) < 2:
        return parts[0] if parts else {}
    return {label: _of_all([part[label] for part in parts]) for label in parts[0]}


def _of_all(heads: Sequence[_Head]) -> _Head:
    masks = [head.allowed for head in heads]
    allowed = None
    if any(mask is not None for mask in masks):
        seen = [
            torch.ones_like(head.attention, dtype=torch.bool)
            if head.allowed is None
            else head.allowed.expand_as(head.attention)
            for head in heads
        ]
        allowed = torch.cat(seen)
    return _Head(
        torch.cat([head.attention for head in heads]),
        torch.cat([head.credit for head in heads]),
        allowed,
    )


def _measured(head: _Head, exact: _Head | None) -> dict[str, list[float]]:
    """All quantities of one attention module, each with a number a head."""
    parts = softmax_gradients(*head)
    values = _decomposed(parts)
    entropy = attention_entropy(head.attention, head.allowed)
    # The number of keys, query by query; see `lit_credit.functional.effective_keys`.
    values["entropy"], values["effective_keys"] = _means(entropy), _means(entropy.exp())
    values["mean_attention"] = _means(mean_attention(head.attention, head.allowed))
    if exact is not None:
        true = softmax_gradients(*exact)
        values |= {f"exact_{name}": numbers for name, numbers in _decomposed(true).items()}
        # The credits themselves, on allowed positions.
        one, two = (p.straight_through.flatten(0, 1) for p in (parts, true))
        cosine = gradient_cosine(one, two).reshape(parts.full.shape[:2])
        values["credit_cosine"] = _means(cosine)
    return values


def _decomposed(parts: SoftmaxGradients) -> dict[str, list[float]]:
    pooled = softmax_energies(parts, dims=(0, -2, -1))
    values = {name: r.tolist() for name, r in pooled._asdict().items()}
    for name, cosine in softmax_cosines(parts)._asdict().items():
        values[name] = _means(cosine)
        values[f"{name}_sd"] = [over_samples(samples).sd for samples in cosine.T]
    return values


def _means(values: Tensor) -> list[float]:
    """Per head the mean of (N, H, ...) over all that is defined."""
    return [over_samples(head.flatten()).mean for head in values.transpose(0, 1)]

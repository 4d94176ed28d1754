"""The diagnostic ``ExactDivergence``: distance from a known distribution, without sampling."""

import math
from collections.abc import Sequence

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.contexts import ContextDiagnostic
from lit_credit.callbacks.distributions.divergence_figure import divergence_figure
from lit_credit.functional import logit_margins, softmax_divergence, top_probability
from lit_credit.functional.memorization_bound import accuracy_bound, association_bound
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.attention.head_weights import read_heads
from lit_credit.inspect.attention.proof import prove_heads
from lit_credit.protocols import LayerProtocol, asked
from lit_credit.runs.history import Row

__all__ = ["ExactDivergence"]


class ExactDivergence(ContextDiagnostic):
    r"""Predictions of the module on all contexts of a known distribution.

    The datamodule offers the contexts by ``contexts()``, which returns (x, prior, rows): see
    :class:`lit_credit.inspect.contexts.Contexts`. Let q be the module's softmax after each context.
    Logs

    - ``divergence/kl``: :math:`\mathrm{KL}(p \,\|\, q)` in nats, the mean over contexts by their
      prior. It is the excess of the cross-entropy over the entropy; ``divergence/kl_max`` is the
      worst context;
    - ``divergence/kl_uniform``: the same for a uniform q, log N - H;
    - ``divergence/accuracy``: the expected top-1 accuracy; ``accuracy_max``: the best possible one;
    - ``divergence/margin``: logit of the likeliest symbol minus the best other logit, mean by
      prior; ``margin_min``: the smallest;
    - ``divergence/memorized``: number of contexts whose likeliest symbol has the largest logit;
      ``contexts``: the number of all contexts;
    - ``divergence/memorized_bound``, ``accuracy_bound``: what one layer of attention can reach at
      least, :math:`H d_h + d` contexts. Only for a module with one attention whose heads can be
      read (:func:`read_heads`), or with several, all directly below one submodule with a true
      attribute ``heads_in_parallel``; their heads are then counted together. The bound is meant for
      equally likely contexts that are followed by one symbol.

    At the end of fit it draws divergence, accuracy and memorized contexts over training.

    Costs one forward on all contexts.

    See :class:`lit_credit.callbacks.ContextDiagnostic` for the other arguments.

    Args:
        units: name of the attention for the bound; None takes the only one.

    Raises:
        ValueError: if one of ``units`` matches nothing.
        MisconfigurationException: if the datamodule offers no contexts, or, before the first step,
            if the module does not return logits for them.

    Example::

        trainer = Trainer(callbacks=[ExactDivergence(every_n_steps=100)])

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115.
    """

    name = "exact_divergence"
    section = "divergence"
    charts = ("kl", "accuracy", "margin", "memorized")
    headline = (
        Headline(
            "kl",
            form=".3g",
            better="down",
            unit="nats",
            panel=Panel("Divergence from the exact distribution", "KL, mean over contexts"),
        ),
        Headline(
            "memorized",
            form=".4g",
            better="up",
            panel=Panel("Memorized associations", "number"),
        ),
    )
    _associations: int | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Check that there are contexts, and find the attention for the bound."""
        super().prepare(trainer, module)
        self._associations = self._bound(module)

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check that the heads in the bound are those of the net; otherwise leave the bound out."""
        few = chunk.few()
        if self._associations is None:
            return {}
        module = chunk.module
        try:
            layers = read_heads(module, self.units, proved_later=True)
            return prove_heads(module, layers, few.logits, who="ExactDivergence").statements
        except MisconfigurationException as error:
            if self.units is not None:
                raise
            self._associations = None
            return {f"not proved, so there is no bound: {error}": math.nan}

    def update(self, chunk: Chunk) -> None:
        """Add the quantities of some contexts."""
        logits, _ = chunk.logits()
        prior, rows = (part.to(logits.device).double() for part in chunk.contexts[1:])
        self._symbols = rows.shape[1]
        for name, values in _measured(logits, prior, rows).items():
            self.gathered.add(name, values)

    def compute(self) -> dict[str, float]:
        """All quantities over all contexts, and the bounds."""
        of = dict(self.gathered.items())
        prior = of["prior"]
        values = self._bounds(len(prior), self._symbols)
        for name in ("kl", "kl_uniform", "accuracy", "accuracy_max", "margin"):
            values[name] = float(prior @ of[name])
        values["kl_max"], values["margin_min"] = float(of["kl"].amax()), float(of["margin"].amin())
        values["memorized"], values["contexts"] = float(of["memorized"].sum()), float(len(prior))
        return values

    def _bound(self, module: LightningModule) -> int | None:
        try:
            layers = read_heads(module, self.units, proved_later=True)
        except MisconfigurationException:
            if self.units is not None:
                raise
            return None  # no attention whose heads can be read
        parent = layers[0].name.rpartition(".")[0]
        below = {layer.name.rpartition(".")[0] for layer in layers}
        together = asked(module.get_submodule(parent), LayerProtocol.heads_in_parallel, False)
        if len(layers) != 1 and not (together and below == {parent}):
            return None
        _, width, size = layers[0].query.shape
        return association_bound(sum(len(layer.query) for layer in layers), size, width)

    def _bounds(self, contexts: int, symbols: int) -> dict[str, float]:
        if self._associations is None:
            return {}
        return {
            "memorized_bound": float(min(self._associations, contexts)),
            "accuracy_bound": accuracy_bound(self._associations, contexts, symbols),
        }

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Divergence, accuracy and memorized contexts over training."""
        return divergence_figure({"this run": [rows]}, section=section)


def _measured(logits: Tensor, prior: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """Every quantity of contexts, (M,) each."""
    target = rows.argmax(1)
    top, best = top_probability(logits, rows), rows.amax(1)
    return {
        "prior": prior,
        "kl": softmax_divergence(logits, rows),
        "kl_uniform": softmax_divergence(torch.zeros_like(rows), rows),
        "accuracy": top,
        "accuracy_max": best,
        "margin": logit_margins(logits, target),
        "memorized": (top == best).double().where(top.isfinite(), math.nan),
    }

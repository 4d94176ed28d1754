"""How well a known distribution is learned, without sampling."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.scheduled import ScheduledDiagnostic
from lit_credit.functional import (
    accuracy_bound,
    association_bound,
    logit_margins,
    softmax_divergence,
    top_probability,
)
from lit_credit.plotting import divergence_figure
from lit_credit.utils.contexts import Contexts, read_contexts, run_contexts
from lit_credit.utils.head_proof import prove_heads
from lit_credit.utils.head_weights import read_heads
from lit_credit.utils.history import Row

__all__ = ["ExactDivergence"]


class ExactDivergence(ScheduledDiagnostic):
    r"""What the module makes of all contexts of a distribution that is known.

    The datamodule offers them by ``contexts()``, which returns (x, prior, rows): see
    :class:`lit_credit.utils.contexts.Contexts`. With q the module's softmax after each context:

    - ``divergence/kl``: :math:`\mathrm{KL}(p \,\|\, q)` in nats, the mean over contexts by their
      prior: by what the cross-entropy exceeds the entropy; ``divergence/kl_max``, the worst;
    - ``divergence/kl_uniform``: the same of a q that knows nothing, log N - H;
    - ``divergence/accuracy``: the expected top-1 accuracy, ``accuracy_max``, the best there is;
    - ``divergence/margin``: logit of the likeliest symbol minus the best other one, mean by prior,
      and ``margin_min``;
    - ``divergence/memorized``: contexts whose likeliest symbol has the largest logit, of
      ``contexts`` that there are;
    - ``divergence/memorized_bound``, ``accuracy_bound``: what one layer of attention can at least,
      :math:`H d_h + d` contexts; only of a module with one attention whose heads can be read
      (:func:`lit_credit.utils.head_weights.read_heads`), or with several, all directly below one
      submodule with a true attribute ``heads_in_parallel``, whose heads are then counted together;
      meant for contexts that are equally likely and followed by one symbol.

    At the end of fit it draws divergence, accuracy and memorized contexts over training.

    Costs one forward on all contexts.

    Args:
        **kwargs: see :class:`lit_credit.callbacks.ScheduledDiagnostic`; ``units`` names the
            attention that the bound is of, None takes the only one; no ``n_samples``.

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
    uses_loss = False
    uses_probe = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._trainer: Trainer | None = None
        self._contexts: Contexts | None = None
        self._associations: int | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Check that there are contexts, and find what the bound is of."""
        read_contexts(trainer)
        self._associations = self._bound(module)
        # Read at the first measurement: a resumed run gives its seed later than this.
        self._trainer, self._contexts = trainer, None

    def prove(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """Check that the heads that the bound counts are those of the net; else leave it out."""
        if self._associations is None or self._trainer is None:
            return {}
        few = Contexts(*(part[:4] for part in read_contexts(self._trainer)))

        def run() -> object:
            return run_contexts(module, few)

        try:
            layers = read_heads(module, self.units)
            return prove_heads(module, layers, run, who="ExactDivergence").statements
        except MisconfigurationException as error:
            if self.units is not None:
                raise
            self._associations = None
            return {f"not proved, so there is no bound: {error}": math.nan}

    def measure(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """All of it."""
        if self._contexts is None and self._trainer is not None:
            self._contexts = read_contexts(self._trainer)
        if self._contexts is None:
            raise RuntimeError("ExactDivergence was not set up.")
        logits, _ = run_contexts(module, self._contexts)
        prior, rows = (part.to(logits.device).double() for part in self._contexts[1:])
        live = prior > 0
        return self._bounds(int(live.sum()), rows.shape[1]) | _measured(
            logits[live], prior[live], rows[live]
        )

    def _bound(self, module: LightningModule) -> int | None:
        try:
            layers = read_heads(module, self.units)
        except MisconfigurationException:
            if self.units is not None:
                raise
            return None  # no attention, or none that can be read
        parent = layers[0].name.rpartition(".")[0]
        below = {layer.name.rpartition(".")[0] for layer in layers}
        together = getattr(module.get_submodule(parent), "heads_in_parallel", False)
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


def _measured(logits: Tensor, prior: Tensor, rows: Tensor) -> dict[str, float]:
    target = rows.argmax(1)
    divergence, top = softmax_divergence(logits, rows), top_probability(logits, rows)
    margin, best = logit_margins(logits, target), rows.amax(1)
    uniform = softmax_divergence(torch.zeros_like(rows), rows)
    values = {
        "kl": prior @ divergence,
        "kl_max": divergence.amax(),
        "kl_uniform": prior @ uniform,
        "accuracy": prior @ top,
        "accuracy_max": prior @ best,
        "margin": prior @ margin,
        "margin_min": margin.amin(),
        "memorized": (top == best).double().where(top.isfinite(), math.nan).sum(),
        "contexts": torch.tensor(len(rows)),
    }
    return {tag: float(value) for tag, value in values.items()}

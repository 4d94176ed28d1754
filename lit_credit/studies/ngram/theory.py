"""The study's own diagnostic and its figure: a net against the best that its rank allows."""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.linalg import pinv

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.contexts import ContextDiagnostic
from lit_credit.callbacks.base.failures import missing
from lit_credit.functional import gradient_cosine, softmax_divergence
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.capture import Point
from lit_credit.inspect.contexts import Contexts
from lit_credit.inspect.matrices import find_unembedding
from lit_credit.plotting._style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    ORANGE,
    PURPLE,
    EndLabel,
    drawable,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    show_place,
    whole_numbers_across,
)
from lit_credit.plotting.ranges import fit_range
from lit_credit.runs.history import Row
from lit_credit.runs.series import series
from lit_credit.studies.ngram.functions import (
    log_ratio_fluctuation,
    low_rank_log_probs,
    optimal_contexts,
    second_order_contexts,
)
from lit_credit.utils.compiled import named_submodules
from lit_credit.utils.names import matched_units
from lit_credit.utils.numbers import number_text
from lit_credit.utils.short_text import choice

__all__ = ["LogProbTheory", "theory_figure"]


class LogProbTheory(ContextDiagnostic):
    r"""Logits of low rank, W_U w + b, against the best there are for the unembedding.

    The datamodule offers a known distribution p by ``contexts()``: see
    :class:`lit_credit.inspect.contexts.Contexts`. With W_U (N, d) and b those of the unembedding as
    it is now, and

    .. math:: w_e = \mathrm{Var}_p(u)^{-1} \, \mathrm{Cov}_p(u, \log p - b)

    the vector that would be best for it after a context, to second order in the error, means over
    contexts by their prior, of divergences in nats:

    - ``theory/kl``: KL of the module's softmax from p;
    - ``theory/kl_best``: KL of the best logits W_U w + b, over all w: the part of ``kl`` that is
      due to the unembedding, whatever vectors it reads;
    - ``theory/variance``: half the variance under p of its logits less log p, which is ``kl`` to
      second order;
    - ``theory/kl_second_order``: KL of the logits W_U w_e + b;
    - ``theory/kl_low_rank``: KL of the singular value decomposition of the log-probabilities
      without their means, cut to rank d, which no W_U or b enters, all contexts alike;
    - ``theory/cosine``: of w_e and the vector that the unembedding reads. What the softmax does not
      see of a vector, its part w_0 for which all entries of W_U w_0 are equal, is left out.

    All but ``kl`` are NaN where a symbol of a context has probability zero, as log p has no finite
    variance there, and all but ``kl_low_rank`` where the unembedding is not finite. ``cosine`` is
    NaN too if one of the vectors is zero. At the end of fit it draws all of it over training.

    Costs one forward on all contexts, and for each context decompositions of a matrix (N, d), with
    some such matrices of all contexts in memory.

    See :class:`lit_credit.callbacks.ContextDiagnostic` for the other arguments.

    Args:
        units: name of the ``nn.Linear`` that makes the logits; None takes the module's last.

    Raises:
        ValueError: if ``units`` does not name one ``nn.Linear``.
        MisconfigurationException: if there is none, the datamodule offers no contexts, or, before
            the first step, if the unembedding does not run, or makes no logits of the N symbols.

    Example::

        trainer = Trainer(callbacks=[LogProbTheory(every_n_steps=100)])

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115,
        whose sequence encoder has a free vector w for each context.
    """

    name = "log_prob_theory"
    section = "theory"
    headline = (
        Headline(
            "theory_kl",
            "kl",
            form=".3g",
            better="down",
            unit="nats",
            panel=Panel("Divergence of the network in the theory", "KL"),
        ),
    )
    charts = ("kl", "kl_best", "cosine")
    _unembedding = ""
    _head: nn.Linear | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the unembedding, and see that there are contexts."""
        self._unembedding = self._named(module)
        super().prepare(trainer, module)

    def check(self, module: LightningModule, contexts: Contexts) -> None:
        """Refuse contexts of other symbols than those that the unembedding knows."""
        symbols = contexts.rows.shape[1]
        made = module.get_parameter(f"{self._unembedding}.weight").shape[0]
        if made != symbols:
            raise MisconfigurationException(
                f"LogProbTheory: {self._unembedding!r} makes {made} numbers, but the contexts are "
                f"followed by one of {symbols} symbols. Set `units` to the nn.Linear that makes "
                "the logits."
            )

    def reset(self) -> None:
        """Forget the contexts, and whose they were."""
        super().reset()
        self._head = None

    def update(self, chunk: Chunk) -> None:
        """Run some contexts."""
        logits, vectors = chunk.logits(Point(self._unembedding, "input"))
        if vectors is None:
            raise MisconfigurationException(
                f"LogProbTheory: {self._unembedding!r} did not run in the forward pass of the "
                "contexts. Set `units` to the nn.Linear that makes the logits."
            )
        self._head = cast(nn.Linear, chunk.module.get_submodule(self._unembedding))
        prior, rows = (part.to(logits.device).double() for part in chunk.contexts[1:])
        found = {"logits": logits, "vectors": vectors, "prior": prior, "rows": rows}
        for name, values in found.items():
            self.gathered.add(name, values)

    def compute(self) -> dict[str, float]:
        """All of it; the decomposition cut to a rank is one of all contexts."""
        of = dict(self.gathered.items())
        if self._head is None:
            return {}
        values = _measured(self._head, of["logits"], of["vectors"], of["rows"])
        return {tag: float(of["prior"] @ value) for tag, value in values.items()}

    def _named(self, module: LightningModule) -> str:
        linears = [n for n, child in named_submodules(module) if isinstance(child, nn.Linear)]
        if self.units is None:
            found = [name for name in [find_unembedding(module)] if name is not None]
        else:
            found = matched_units(self.units, linears)
        if not found:
            raise missing(self, module, "an nn.Linear", "Make the logits in one.")
        if len(found) > 1:
            raise ValueError(
                f"`units` matches {choice(found)}, expected the one "
                "nn.Linear that makes the logits."
            )
        return found[0]

    def draw(self, rows: Sequence[Row], section: str) -> Figure:
        """Divergences, and the cosine, over training."""
        return theory_figure(rows, section=section)


def _measured(head: nn.Linear, logits: Tensor, vectors: Tensor, p: Tensor) -> dict[str, Tensor]:
    """All quantities, one number a context."""
    weight, p = head.weight.detach().double(), p.double()
    bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().double()
    best = second_order_contexts(weight, p, bias)
    rank = min(weight.shape[1], *p.shape)
    centred = weight - weight.mean(0)
    # Projects onto what the softmax sees of a vector; LAPACK would raise where it is not finite.
    seen = pinv(centred.nan_to_num(0, 0, 0)) @ centred
    theory = {
        "variance": (p * log_ratio_fluctuation(logits, p).square()).sum(1) / 2,
        "kl_best": softmax_divergence(optimal_contexts(weight, p, bias) @ weight.mT + bias, p),
        "kl_second_order": softmax_divergence(best @ weight.mT + bias, p),
        "kl_low_rank": softmax_divergence(low_rank_log_probs(p, rank), p),
        "cosine": gradient_cosine(best @ seen, vectors.double() @ seen),
    }
    possible = (p > 0).all(1)
    values = {tag: value.where(possible, math.nan) for tag, value in theory.items()}
    return {"kl": softmax_divergence(logits, p)} | values


# The figure.

_HEIGHT = 4.6


class _Line(NamedTuple):
    tag: str
    text: str
    color: str
    style: str = "-"


_DIVERGENCES = (
    _Line("kl", "net", BLUE),
    _Line("variance", "net, half a variance", GREEN, "--"),
    _Line("kl_best", "best vectors", ORANGE),
    _Line("kl_second_order", "best to second order", PURPLE, "--"),
    _Line("kl_low_rank", "truncated SVD", GREY, ":"),
)
_COSINE = (_Line("cosine", "cosine", PURPLE),)


def theory_figure(rows: Sequence[Row], *, title: str = "", section: str = "theory") -> Figure:
    """Divergences on a logarithmic axis, and the cosine of a net's vectors with the best ones.

    Args:
        rows: of the history ``log_prob_theory``.
        title: of the figure.
        section: what the tags begin with.

    Returns:
        The figure, two panels over optimizer steps; one without a defined value says n/a.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"theory/kl": 0.1}}
        >>> [len(ax.lines) for ax in theory_figure([row]).axes]
        [1, 0]
    """
    figure = Figure(figsize=(11.0, _HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    dress(left, "Divergence", "mean KL (nats)", "optimizer steps", log=True)
    dress(right, "Vectors against the best ones", "mean cosine", "optimizer steps")
    for ax, lines in ((left, _DIVERGENCES), (right, _COSINE)):
        whole_numbers_across(ax, most=4)
        _draw(ax, rows, section, lines)
    return figure


def _draw(ax: Axes, rows: Sequence[Row], section: str, lines: Sequence[_Line]) -> None:
    ends: list[EndLabel] = []
    for line in lines:
        curve = series(rows, f"{section}/{line.tag}", "step")
        values = drawable(curve.values(), log=ax.get_yscale() == "log")
        if all(value != value for value in values):
            continue
        dots = 4 if len(values) <= 15 else 0
        ax.plot(
            list(curve),
            values,
            color=line.color,
            linestyle=line.style,
            linewidth=2.2,
            marker="o",
            markersize=dots,
        )
        show_place(ax, list(curve)[-1], values)
        text = f"{line.text} {number_text(values[-1])}"
        ends.append(EndLabel(last_finite(values), text, line.color))
    if not ends:
        not_applicable(ax)
        return
    ax.set_xlim(min(ax.dataLim.x0, 0), max(ax.dataLim.x1, 1))
    fit_range(ax, reach=None if ax.get_yscale() == "log" else (0.0, 1.0))
    mark_ends(ax, ends, height=_HEIGHT * 72 * 0.75)

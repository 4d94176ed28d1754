"""How heads share the work of predicting."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.attention import head_tag
from lit_credit.callbacks.attribution_proof import prove_attribution
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.missing import missing
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.head_logits import HeadLogits, head_logits
from lit_credit.functional import logit_margins, shared_work
from lit_credit.plotting import SignedMap, attribution_figure, signed_heatmaps
from lit_credit.utils.head_weights import read_heads
from lit_credit.utils.history import Row
from lit_credit.utils.matrices import find_unembedding
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_names import short_names

__all__ = ["HeadAttribution"]

_TARGET = "target"
_MOST_EXAMPLES, _MOST_SYMBOLS = 200, 30


class HeadAttribution(ProbeDiagnostic):
    r"""What does each head add to the logits, and is it right by itself?

    Direct logit attribution: a head adds :math:`y_h = A_h V_h W_{O,h}^\top` to the stream, and so
    :math:`W_U y_h` to the logits; a norm before the unembedding keeps the scale that the whole
    stream gives it. With the margin of a part the logit that it adds to the correct symbol minus
    the most that it adds to another one, and a part right where its margin is above 0, it logs for
    every attention and head, for ``heads`` (the sum of them), ``rest`` (what is left of the logits:
    the embedding, MLPs, biases) and ``group`` (the logits themselves):

    - ``attribution/margin/<module>/H00``, ``margin/heads``, ..: mean over the probe;
    - ``attribution/accuracy/<module>/H00`` ..: how often the part is right by itself;
    - ``attribution/all_right`` and ``attribution/none_right``: how often every head is right by
      itself, and how often none is. Heads that partition the samples have neither.

    Heads act on each other, and through later layers, which is in ``rest`` or in those later heads;
    what is shown is the direct path. At the end of fit it draws margins sample by sample with the
    accuracies, and the first sample's logits symbol by symbol.

    Before the first measurement it proves on four rows that the heads as read give the output of
    their attention, that this arrives unchanged in front of the final norm, all else frozen, and
    that the loss asks these logits for the targets; the first row of the history says so. A net
    where that fails is refused: post-norm layers, LayerScale, residual multipliers and gates,
    pooling, an encoder beside the decoder, a second output head.

    Costs one forward on ``n_samples`` rows, and holds H n N logits of a layer; once, some forwards
    on four rows.

    Args:
        unembedding: name of the ``nn.Linear`` that makes the logits; None takes the module's last.
        position: the one that predicts, where batches have one target a sample: -1, the last, or
            0 for a class token in front.
        **kwargs: see :class:`lit_credit.callbacks.ProbeDiagnostic`; ``units`` are the attention
            modules, None takes all.

    Raises:
        ValueError: if ``units`` matches no attention, or ``unembedding`` no ``nn.Linear``.
        MisconfigurationException: if there is no attention whose heads can be read, or no
            ``nn.Linear``; before the first step, if heads add to another stream than the
            unembedding reads, or to another ``position``, what they add does not arrive there as it
            is, batches have no targets, or the loss has others.

    Example::

        trainer = Trainer(callbacks=[HeadAttribution(units=["blocks.*.attention"])])

    Reference:
        Elhage et al., A Mathematical Framework for Transformer Circuits, 2021,
        transformer-circuits.pub/2021/framework.
    """

    name = "head_attribution"
    section = "attribution"
    charts = ("margin", "accuracy")
    options = ("unembedding", "position")

    def __init__(
        self, *, unembedding: str | None = None, position: int = -1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_range(position=position)
        self.unembedding = unembedding
        self.position = position
        self._point = ""
        self._margins = torch.empty(0)
        self._example: SignedMap | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find heads and unembedding."""
        read_heads(module, self.units, proved_later=True)
        found = find_unembedding(module, self.unembedding)
        if found is None:
            raise missing(self, module, "an nn.Linear that makes the logits", "Give it one.")
        self._point = found

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check that heads add to the stream what they are said to add."""
        return prove_attribution(chunk, self.units, self._point, self.position)

    def reset(self) -> None:
        """Forget the margins; the last picture stays until there is another."""
        super().reset()
        self._is_first = True

    def update(self, chunk: Chunk) -> None:
        """Margins (M,) of each part; keeps the logits of the probe's first sample."""
        found = head_logits(chunk, self.units, self._point, self.position)
        parts = _parts(found)
        for name, part in parts.items():
            self.gathered.add(name, logit_margins(part, found.target))
        self.gathered.add(_TARGET, found.target)
        if self._is_first:
            self._is_first = False
            self._example = _example(parts, found.target)

    def compute(self) -> dict[str, float]:
        """``margin/<part>``, ``accuracy/<part>`` and how samples are shared."""
        margins = dict(self.gathered.items())
        target = margins.pop(_TARGET)
        work = shared_work(torch.stack(list(margins.values())[:-3]))
        values = {f"margin/{name}": margin.mean().item() for name, margin in margins.items()}
        each = shared_work(torch.stack(list(margins.values()))).solo
        values |= {
            f"accuracy/{name}": one for name, one in zip(margins, each.tolist(), strict=True)
        }
        values["all_right"], values["none_right"] = work.all_right.item(), work.none_right.item()
        some = torch.linspace(0, len(target) - 1, min(len(target), _MOST_EXAMPLES)).long()
        order = target.argsort(stable=True)[some.to(target.device)]
        self._margins = torch.stack(list(margins.values()))[:, order].cpu()
        return values

    def draw(self, rows: Sequence[Row], section: str) -> Mapping[str, Figure]:
        """Margins and accuracies, and one example, of the last measurement."""
        if self._example is None:  # a resumed run that had ended: nothing was measured
            return {}
        last = rows[-1]
        prefix = f"{section}/accuracy/"
        accuracy = {
            t.removeprefix(prefix): v for t, v in last["values"].items() if t.startswith(prefix)
        }
        accuracy = dict(zip(_short(list(accuracy)), accuracy.values(), strict=True))
        step = f"step {last['step']}"
        return {
            "figure": attribution_figure(self._margins, accuracy, title=f"Heads, {step}"),
            "example": signed_heatmaps({"logits": self._example}, title=f"First sample, {step}"),
        }


def _example(parts: Mapping[str, Tensor], target: Tensor) -> SignedMap:
    """The logits that each part adds for the first sample, of the symbols with the largest ones."""
    first = torch.stack([part[0] for part in parts.values()], 1).cpu()  # (N, parts)
    shown = first[:, -1].clone()
    shown[int(target[0])] = torch.inf  # the correct symbol is always among those shown
    best = shown.topk(min(len(first), _MOST_SYMBOLS)).indices.sort().values
    symbols = [f"{s}*" if s == int(target[0]) else str(s) for s in best.tolist()]
    return SignedMap(first[best], "part", "symbol, * the correct one", _short(list(parts)), symbols)


def _short(names: Sequence[str]) -> list[str]:
    """Without what the names of all attention share; without the name, if there is only one."""
    places = dict.fromkeys(
        place for place, _, _ in (name.rpartition("/") for name in names) if place
    )
    short = dict(zip(places, short_names(places), strict=True)) if len(places) > 1 else {}
    parts = [name.rpartition("/") for name in names]
    return [f"{short[place]}/{part}" if place in short else part for place, _, part in parts]


def _parts(found: HeadLogits) -> dict[str, Tensor]:
    """Logits (M, N) of every head, of the heads, the rest, and the whole."""
    below_net = all(name.startswith("net.") for name in found.heads)
    parts = {}
    for name, added in found.heads.items():
        label = (name.removeprefix("net.") if below_net else name) or "attention"
        for index, head in enumerate(added):
            parts[f"{label}/{head_tag(index)}"] = head
    heads = torch.stack([added.sum(0) for added in found.heads.values()]).sum(0)
    rest = found.logits - heads
    # Where nothing is left, as without a residual path, rounding must not look like a choice.
    size = found.logits.abs().amax() + heads.abs().amax()
    rest = torch.where(rest.abs() <= 32 * torch.finfo(rest.dtype).eps * size, 0.0, rest)
    return {**parts, "heads": heads, "rest": rest, "group": found.logits}

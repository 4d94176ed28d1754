"""The diagnostic ``HeadAttribution``: how heads share the work of predicting."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.failures import missing
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.heads.attention import head_tag
from lit_credit.callbacks.heads.attribution_figure import attribution_figure
from lit_credit.callbacks.heads.attribution_proof import prove_attribution
from lit_credit.callbacks.heads.head_logits import HeadLogits, head_logits
from lit_credit.callbacks.heads.head_targets import targets_of
from lit_credit.functional import logit_margins, shared_work
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.attention.head_weights import read_heads
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.inspect.matrices import find_unembedding, read_matrices
from lit_credit.plotting import SignedMap, signed_heatmaps
from lit_credit.plotting.short_names import short_names
from lit_credit.runs.history import Row
from lit_credit.utils.ranges import check_range

__all__ = ["HeadAttribution"]

_TARGET = "target"
_MOST_EXAMPLES, _MOST_SYMBOLS = 200, 30
_MOST_LOGITS = 2**31
"""Largest number of head logits in one measurement: about 5 training steps of GPT-2."""
_MOST_ENTRIES = 2**23
"""Largest number of an attention's head logits held at once: 32 MB in float32."""


class HeadAttribution(ProbeDiagnostic):
    r"""What does each head add to the logits, and is it right by itself?

    Direct logit attribution: a head adds :math:`y_h = A_h V_h W_{O,h}^\top` to the stream, and so
    :math:`W_U y_h` to the logits. A norm before the unembedding keeps the scale that the whole
    stream gives it. The margin of a part is the logit that it adds to the correct symbol minus the
    largest logit that it adds to another symbol; a part is right where its margin is above 0. Logs
    for every attention and head, for ``heads`` (their sum), ``rest`` (the remaining logits, from
    the embedding, MLPs and biases) and ``group`` (the logits themselves):

    - ``attribution/margin/<module>/H00``, ``margin/heads``, ..: mean over the probe;
    - ``attribution/accuracy/<module>/H00`` ..: how often the part is right by itself;
    - ``attribution/all_right`` and ``attribution/none_right``: how often every head is right by
      itself, and how often none is. Both are 0 if the heads partition the samples.

    Only the direct path is shown. Effects of heads on later layers count in ``rest`` or in those
    later heads. At the end of fit it draws the margins of samples with the accuracies, and the
    first sample's logits symbol by symbol.

    Before the first measurement it proves on four rows that the heads as read give the output of
    their attention, that this output arrives unchanged in front of the final norm while all else is
    frozen, and that the loss asks these logits for the targets. The first row of the history states
    this. A net that fails the proof is refused: post-norm layers, LayerScale, residual multipliers
    and gates, pooling, an encoder beside the decoder, a second output head.

    Costs one forward on ``n_samples`` rows, and the logits of every head, which are held block by
    block; once, some forwards on four rows.

    See :class:`lit_credit.callbacks.ProbeDiagnostic` for the other arguments.

    Args:
        unembedding: name of the ``nn.Linear`` that makes the logits; None takes the module's last.
        position: the position that predicts, if batches have one target per sample: -1 for the
            last, or 0 for a class token in front.
        positions: number of samples, or positions of samples, to analyse, evenly spread over those
            of the probe that have a target. None takes all, but computes at most two billion logits
            of heads; a line says so if this means fewer positions.
        units: names or patterns of the attention modules; None takes all.

    Raises:
        ValueError: if ``units`` matches no attention, or ``unembedding`` no ``nn.Linear``.
        MisconfigurationException: if there is no attention whose heads can be read, or no
            ``nn.Linear``; before the first step, if heads add to another stream than the
            unembedding reads, or to another ``position``, if their output does not arrive there
            unchanged, if batches have no targets, or if the loss has other targets.

    Example::

        trainer = Trainer(callbacks=[HeadAttribution(units=["blocks.*.attention"])])

    Reference:
        Elhage et al., A Mathematical Framework for Transformer Circuits, 2021,
        transformer-circuits.pub/2021/framework.
    """

    name = "head_attribution"
    section = "attribution"
    charts = ("margin", "accuracy")
    headline = (
        Headline(
            "all_heads_right",
            "all_right",
            form=".3f",
            better="up",
            panel=Panel("Contexts that all heads get right", "share of contexts", reach=(0, 1)),
        ),
    )
    over_heads = ("mean", "max")
    options = ("unembedding", "position", "positions")

    def __init__(
        self,
        *,
        unembedding: str | None = None,
        position: int = -1,
        positions: int | None = None,
        n_samples: int | None = None,
        chunk_size: int | None = None,
        units: list[str] | None = None,
        loss: LossFunction | None = None,
        probe: Literal["val", "train"] = "val",
        mode: Literal["eval", "train"] = "eval",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            n_samples=n_samples,
            chunk_size=chunk_size,
            units=units,
            loss=loss,
            probe=probe,
            mode=mode,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_range(position=position)
        check_range(1, positions=positions)
        self.positions = positions
        self.unembedding = unembedding
        self.position = position
        self._point = ""
        self._has_said = False
        self._margins = torch.empty(0)
        self._example: SignedMap | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find heads and unembedding."""
        layers = read_heads(module, self.units, proved_later=True)
        found = find_unembedding(module, self.unembedding)
        if found is None:
            raise missing(self, module, "an nn.Linear that makes the logits", "Give it one.")
        self._point, self._has_said = found, False
        (weight,) = read_matrices(module, [found]).values()
        self._logits = len(weight) * sum(len(layer.query) for layer in layers)
        self._most = self.positions or max(1, _MOST_LOGITS // self._logits)

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check on a chunk with targets that heads add to the stream what is logged."""
        with_targets = (
            some
            for some in chain([chunk], self.chunks(chunk.module))
            if (targets_of(some.module, some.batch) >= 0).any()
        )
        shown = next(with_targets, chunk)
        return prove_attribution(shown, self.units, self._point, self.position)

    def reset(self) -> None:
        """Forget the margins; the last example stays until there is a new one."""
        super().reset()
        self._is_first = True
        self._n_targets = 0

    def update(self, chunk: Chunk) -> None:
        """Add the margins (M,) of each part; keep the logits of the probe's first sample."""
        most = max(1, round(self._most * chunk.share))
        found = head_logits(chunk, self.units, self._point, self.position, most)
        self._n_targets += found.n_targets
        if not found.n_targets:
            return
        first = {}
        with torch.no_grad():
            for name, margins, logits in _parts(found):
                self.gathered.add(name, margins)
                first[name] = logits
        self.gathered.add(_TARGET, found.target)
        if self._is_first:
            self._is_first = False
            self._example = _example(first, found.target)

    def compute(self) -> dict[str, float]:
        """``margin/<part>``, ``accuracy/<part>``, ``all_right`` and ``none_right``."""
        if not self._n_targets:
            raise MisconfigurationException("HeadAttribution: no row of the probe has a target.")
        margins = dict(self.gathered.items())
        target = margins.pop(_TARGET)
        if len(target) < self._n_targets and not self._has_said:
            self._has_said = True
            rank_zero_info(
                f"HeadAttribution takes {len(target)} of the probe's {self._n_targets} positions "
                f"apart, evenly spread: heads make {self._logits:.2g} logits for each. Set "
                "`positions` for more."
            )
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
        """Margins, accuracies and one example of the last measurement."""
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
    """Logits of each part for the first sample, for the symbols with the largest logits."""
    first = torch.stack(list(parts.values()), 1).cpu()  # (N, parts)
    shown = first[:, -1].clone()
    shown[int(target[0])] = torch.inf  # the correct symbol is always among those shown
    best = shown.topk(min(len(first), _MOST_SYMBOLS)).indices.sort().values
    symbols = [f"{s}*" if s == int(target[0]) else str(s) for s in best.tolist()]
    return SignedMap(first[best], "part", "symbol, * the correct one", _short(list(parts)), symbols)


def _short(names: Sequence[str]) -> list[str]:
    """Names without the parts that all share; without the module if there is only one."""
    places = dict.fromkeys(
        place for place, _, _ in (name.rpartition("/") for name in names) if place
    )
    short = dict(zip(places, short_names(places), strict=True)) if len(places) > 1 else {}
    parts = [name.rpartition("/") for name in names]
    return [f"{short[place]}/{part}" if place in short else part for place, _, part in parts]


def _parts(found: HeadLogits) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, margins (M,) and first logits (N,) of every head, the heads, the rest, the group."""
    names = [layer.name for layer in found.layers]
    below_net = all(name.startswith("net.") for name in names)
    total: Tensor | None = None
    for name, added in found.added():
        label = (name.removeprefix("net.") if below_net else name) or "attention"
        margins, first, logits = _in_blocks(found, added)
        total = logits if total is None else total.add_(logits)
        for index in range(len(added)):
            yield f"{label}/{head_tag(index)}", margins[index], first[index]
    heads = found.logits if total is None else total
    rest = found.logits - heads
    # If nothing is left, as without a residual path, rounding errors must not look like logits.
    size = found.logits.abs().amax() + heads.abs().amax()
    rest = rest.masked_fill_(rest.abs() <= 32 * torch.finfo(rest.dtype).eps * size, 0.0)
    for name, part in {"heads": heads, "rest": rest, "group": found.logits}.items():
        yield name, logit_margins(part, found.target), part[0].clone()


def _in_blocks(found: HeadLogits, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Margins (H, M) of heads, their logits (H, N) for the first sample, the heads' sum (M, N)."""
    margins, totals, first = [], [], None
    rows = max(1, _MOST_ENTRIES // (len(added) * found.logits.shape[-1]))
    for start in range(0, len(found.target), rows):
        some = slice(start, start + rows)
        logits = found.read(added, some)
        margins.append(logit_margins(logits, found.target[some]))
        totals.append(logits.sum(0))
        first = logits[:, 0].clone() if first is None else first
    return torch.cat(margins, 1), torch.empty(0) if first is None else first, torch.cat(totals)

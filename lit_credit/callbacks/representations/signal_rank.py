"""How many directions do activations, credit, gradients, updates and weights use?"""

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.credited import delivered_credit
from lit_credit.callbacks.base.last_step import LastStepDiagnostic
from lit_credit.callbacks.base.parameters import net_parameters
from lit_credit.callbacks.base.points import layer_tag, point_text, unit_names
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.representations.row_spectrum import RowSpectrum, feature_rows
from lit_credit.callbacks.representations.signal_rank_figure import signal_rank_figure
from lit_credit.functional import SpectrumRanks, gram_spectrum, spectrum_ranks
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.capture import Point
from lit_credit.inspect.channels import feature_dim
from lit_credit.inspect.unit_names import unit_modules
from lit_credit.runs.history import Row
from lit_credit.utils.nested import has_fractions

__all__ = ["SignalRank"]

_AT_UNITS = ("activation", "credit", "exact")
_OF_WEIGHTS = ("gradient", "update", "weight")


class SignalRank(LastStepDiagnostic):
    r"""How many directions does each signal use? The effective rank, ``exp(-sum p log p)``.

    The p are a matrix's singular values over their sum. Logs, for each unit in forward order:

    - ``rank/activation/L00`` ..: of the unit's outputs, less their mean;
    - ``rank/credit/L00`` ..: of the credit at the unit's output; ``rank/exact/L00``: of the exact
      gradient there;
    - ``rank/gradient/L00`` ..: of the gradient that the optimizer gets for the unit's weights, of
      the whole probe; ``rank/update/L00``: of the last step that the optimizer made, NaN before the
      first; ``rank/weight/L00``: of the weights.

    Each has two more ranks, ``rank/credit_stable/L00`` (squared Frobenius norm over squared
    spectral norm) and ``rank/credit_participation/L00`` (squared sum of s^2 over the sum of s^4).

    The rows of a matrix of activations, credit or gradients are the samples of the probe: for an
    output (N, T, d) the positions of all samples, for a feature map (N, C, H, W) all places, with C
    features. Convolutions give (N, C, T), and channels are last where the unit's last layer says
    so, (N, H, W, C). So the rank is at most the smaller of rows and features, and n_samples limits
    it. Activations alone are centred. A kernel (out, in, h, w) is a matrix of ``out`` rows; with
    several matrices in a unit their mean rank counts, and a unit without any has no such tags. The
    rank of a matrix that is zero or not finite is NaN. Without ``credit(batch)`` the credit is the
    gradient that the module's own backward delivers; a rule that credits parameters has NaN.

    Chunks add up to a matrix (d, d) in float64 for each signal and unit, or to their rows, while
    these are fewer than d: a unit of d = 4096 takes 134 MB a signal. Singular values below 1e-7 of
    the largest count as zero. Costs about four forward and backward passes on ``n_samples`` rows,
    one copy of the gradients of the units' weights, and O(d^3) for each signal of a unit. With more
    than 6 units, loggers get minimum, median and maximum over units; the history has all numbers.
    See :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.

    Raises:
        ValueError: if one of ``units`` receives no credit.
        MisconfigurationException: if the module declares no units and none are given.

    Reference:
        Roy, Vetterli, The effective rank, EUSIPCO 2007; Garrido et al., RankMe, 2022, arXiv
        2210.02885; on the rank of errors under feedback alignment: arXiv 2606.11123.
    """

    name = "signal_rank"
    section = "rank"
    charts = (*_AT_UNITS, *_OF_WEIGHTS)
    over_layers = ("min", "median", "max")
    most_layers = 6
    unlogged = ("*_stable/*", "*_participation/*")
    steps_of_a_batch = 4.0
    headline = (
        Headline(
            "activation_rank",
            "activation",
            layers="mean",
            form=".1f",
            order=23,
            log=True,
            panel=Panel(
                "Directions of the units' outputs",
                "effective rank, mean over units",
                log=True,
                order=4,
            ),
        ),
        Headline("credit_rank", "credit", layers="mean", form=".1f", order=24, log=True),
    )

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the units."""
        super().prepare(trainer, module)
        self.names = unit_names(self, module, self.units)
        self.points = [Point(name, "output") for name in self.names]
        self.layer_texts = list(map(point_text, self.points))

    def reset(self) -> None:
        """Forget what the chunks have brought."""
        super().reset()
        self._spectra: dict[str, RowSpectrum] = {}
        self._gradients: dict[str, Tensor] = {}
        self._weights: dict[str, dict[str, nn.Parameter]] = {}

    def update(self, chunk: Chunk) -> None:
        """Add a chunk's rows, and its part of the gradients of the weights."""
        if not self._weights:
            self._weights = {name: _matrices(chunk.module, name) for name in self.names}
        exact = chunk.gradients(self.points)
        credit = delivered_credit(chunk, self.points)
        for index, (point, (h, g)) in enumerate(exact.items()):
            channel = feature_dim(chunk.module, point, h)
            found = {"activation": h, "credit": credit.get(point.module), "exact": g}
            for signal, value in found.items():
                rows = self._spectra.setdefault(
                    f"{signal}/{layer_tag(index)}", RowSpectrum(centred=signal == "activation")
                )
                if value is not None:
                    rows.add(feature_rows(value, channel if value.ndim == h.ndim else None))
        self._add_gradients(chunk)

    def _add_gradients(self, chunk: Chunk) -> None:
        named = {
            name: p for of in self._weights.values() for name, p in of.items() if p.requires_grad
        }
        parts = chunk.parameter_gradients(list(named.values()))
        for name, part in zip(named, parts, strict=True):
            before = self._gradients.get(name)
            self._gradients[name] = part if before is None else before + part

    def compute(self) -> dict[str, float]:
        """The effective rank of each signal by unit, then the stable rank and participation."""
        found: dict[str, SpectrumRanks] = {}
        for tag, rows in self._spectra.items():
            found[tag] = spectrum_ranks(rows.singular_values())
        update = self.last_update or {}
        for index, matrices in enumerate(self._weights.values()):
            if matrices:
                layer = layer_tag(index)
                found[f"gradient/{layer}"] = _mean_ranks(self._gradients, matrices)
                found[f"update/{layer}"] = _mean_ranks(update, matrices)
                found[f"weight/{layer}"] = _mean_ranks(matrices, matrices)
        signals = (*_AT_UNITS, *_OF_WEIGHTS)
        tags = sorted(found, key=lambda tag: signals.index(tag.split("/")[0]))
        values = {tag: float(found[tag].effective) for tag in tags}
        for kind in ("stable", "participation"):
            for tag in tags:
                signal, layer = tag.split("/")
                values[f"{signal}_{kind}/{layer}"] = float(getattr(found[tag], kind))
        return values

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The mean rank of each signal over epochs, and that of all units at the end."""
        return signal_rank_figure(rows, section, [n.removeprefix("net.") for n in self.names])


def _matrices(module: LightningModule, unit: str) -> dict[str, nn.Parameter]:
    """The weights of a unit with two dimensions at least, by name."""
    within = {id(p) for part in unit_modules(module, unit) for p in part.parameters()}
    return {
        name: p
        for name, p in net_parameters(module).items()
        if id(p) in within and not is_lazy(p) and p.ndim > 1 and has_fractions(p)
    }


def _mean_ranks(source: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> SpectrumRanks:
    """The mean ranks of the matrices of these names, of those with a rank."""
    nothing = torch.empty(0, dtype=torch.float64)
    spectra = [_spectrum(source[name]) if name in source else nothing for name in names]
    ranks = zip(*map(spectrum_ranks, spectra), strict=True)
    means = (over_samples(torch.stack([rank.cpu() for rank in of])).mean for of in ranks)
    return SpectrumRanks(*(torch.tensor(mean, dtype=torch.float64) for mean in means))


def _spectrum(matrix: Tensor) -> Tensor:
    """Singular values of a weight, of whose first dimension each entry is a row."""
    rows = feature_rows(matrix.detach().flatten(1))
    rows = (rows.cpu() if rows.device.type == "mps" else rows).double()
    return gram_spectrum(rows @ rows.mT if len(rows) < rows.shape[1] else rows.mT @ rows)

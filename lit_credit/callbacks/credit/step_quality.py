"""Whether the last update was a step down, and how far down it went."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Tensor, nn

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.last_step import LastStepDiagnostic
from lit_credit.callbacks.base.moved import moved
from lit_credit.callbacks.base.parameters import check_parameters, trained_parameters
from lit_credit.callbacks.base.points import unit_names
from lit_credit.callbacks.base.whole_probe import WholeProbeDiagnostic
from lit_credit.callbacks.credit.step_figure import step_figure
from lit_credit.functional import joint_norm, step_alpha
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.probe.probe import Probe, take_probe
from lit_credit.inspect.probe.probe_loader import probe_loader
from lit_credit.inspect.unit_names import unit_modules
from lit_credit.runs.history import Row
from lit_credit.utils.short_text import choice

__all__ = ["StepQuality"]

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Places along the step."""
LENGTH = 1e-3
"""Length of the step that stands for an update where none was seen, relative to the weights."""


class StepQuality(WholeProbeDiagnostic, LastStepDiagnostic):
    r"""Was the last update a step down? The loss along it, and along the gradient beside it.

    theta is the net before the last training batch, u the update of that batch, L the loss of the
    probe, s in 0, 0.5, 1, 1.5, 2:

    - ``step/change``: ``L(theta + u) - L(theta)``, negative for a step down;
    - ``step/change_bp``: the change by a step of equal length along minus the exact gradient of L,
      ``L(theta - |u| g / |g|) - L(theta)``;
    - ``step/ratio``: ``change / change_bp``. It is 1 if the update is as good on the probe as the
      gradient of the whole probe, and negative if it goes uphill; NaN if the gradient step does not
      go down either, by more than the rounding of the weights' dtype (6 % of the loss in bfloat16).
      Even under BP it is below 1, because an update sees one batch, and Adam does
      not follow the gradient. Compare runs of one optimizer and batch size;
    - ``step/cosine``: cosine of u and -g;
    - ``step/alpha``: where the step ends beside the minimum of the parabola through
      ``L(theta + s u)``. -1: it hardly moves; 0: at the minimum; 1: as far beyond it. NaN if the
      parabola is not convex, if the step begins uphill, or if the curvature is below the rounding
      of the loss;
    - ``step/change_train``, ``step/alpha_train``: the same on as many rows of the training data.
      They are left out if the probe is training data itself. The rows of the probe are
      validation data, with which the update was not made.

    ``step/along/000`` .. ``200`` (s in per cent) and ``step/along_train/...`` are all changes
    along the step, which the figure shows. With ``units``, u is only the part of the update in the
    parameters of these submodules; the others are as they are after the batch.

    Where no update was seen (before training, and in ``validate``, ``test`` and
    :func:`lit_credit.diagnose`), theta is the net as it is, and u the step along the module's own
    gradient on the probe, which under a rule is the rule's update, whose length is 1e-3 of
    ``|theta|``.

    Costs one backward and seven forward passes on the probe, five forward passes on the training
    rows, and the memory of four copies of the parameters beside that of any diagnostic: the update,
    the gradient, and two while the net is moved. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.

    Reference:
        Schneider, Dangel, Hennig, "Cockpit: A Practical Debugging Tool for the Training of Deep
        Neural Networks", 2021, arXiv 2102.06604, for alpha.
    """

    name = "step_quality"
    section = "step"
    charts = ("change", "alpha")
    steps_of_a_batch = 4.0
    headline = (
        Headline(
            "step_ratio",
            "ratio",
            head="step / BP step",
            form=".2f",
            better="up",
            panel=Panel(
                "Change of the loss by an update, beside BP's",
                "update / gradient step of equal length",
                reach=(0, 1),
            ),
        ),
        Headline("step_alpha", "alpha", form=".2f"),
    )

    second: Probe | None = None
    """Rows of the training data, if the probe is of validation data."""

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the parameters of the units."""
        self._chosen: set[int] | None = None
        if self.units is not None:
            names = unit_names(self, module, self.units)
            check_parameters(module, names)
            parts = [part for name in names for part in unit_modules(module, name)]
            self._chosen = {id(p) for part in parts for p in part.parameters()}

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the probe, and as many rows of the training data beside validation data."""
        super().begin(trainer, module)
        self.second = None
        if self.probe is None or self._evaluates or self.source == "train":
            return
        if probe_loader(trainer, "val").stage == RunningStage.TRAINING:
            return
        rows = self.probe.n_rows
        try:
            self.second = take_probe(trainer, module, rows, self.chunk_size, "train")
        except MisconfigurationException as error:
            reason = str(error).partition("\n")[0]
            rank_zero_info(f"StepQuality measures nothing on training data: {reason}")

    def _forget(self) -> None:
        super()._forget()
        self.second = None

    def compute(self) -> dict[str, float]:
        """The changes of the loss."""
        module = self.kept[0].module
        chosen = self._chosen
        parameters = {
            name: parameter
            for name, parameter in trained_parameters(module).items()
            if chosen is None or id(parameter) in chosen
        }
        if not parameters:
            where = "" if self.units is None else f" in {choice(self.units)}"
            self.attempts.tell(max(self._last_step, 0), f"no parameter{where} is trained")
        step, end = self._step(parameters)
        # A parameter that was unfrozen after the batch took no part in the step.
        parameters = {name: p for name, p in parameters.items() if name in step}
        second = self._second(module)
        losses, train, gradient = [], [], {}
        for scale in SCALES if step else ():
            with moved(parameters, step, scale - end):
                losses.append(_loss(self.kept))
                train += [_loss(second)] if second else []
                if scale == 0.0:
                    gradient = self._gradient(parameters, exact=True)
        rounding = _rounding(parameters.values())
        values = _along(losses, "", rounding)
        values["change_bp"] = values["ratio"] = values["cosine"] = math.nan
        if step and (lengths := (_length(step), _length(gradient))) and min(lengths) > 0:
            values["cosine"] = -_product(step, gradient, *lengths)
            with moved(parameters, _beside(step, gradient, end, *lengths), 1.0):
                values["change_bp"] = _loss(self.kept) - losses[0]
        if values["change_bp"] < -rounding * abs(losses[0] if losses else math.nan):
            values["ratio"] = values["change"] / values["change_bp"]
        return {**values, **(_along(train, "_train", rounding) if second else {})}

    def _step(self, parameters: Mapping[str, nn.Parameter]) -> tuple[dict[str, Tensor], float]:
        """The step, and its place s at which the parameters are; empty if there is none."""
        if (update := self.last_update) is not None:
            return {name: u for name, u in update.items() if name in parameters}, 1.0
        step = self._gradient(parameters, exact=False)
        size, length = _length(step), LENGTH * _length(parameters)
        if not (0 < size < math.inf and length > 0):
            return {}, 0.0
        return {name: gradient.mul_(-length / size) for name, gradient in step.items()}, 0.0

    def _gradient(
        self, parameters: Mapping[str, nn.Parameter], *, exact: bool
    ) -> dict[str, Tensor]:
        """The gradient of the loss of the probe, or the module's own."""
        total: dict[str, Tensor] = {}
        for chunk in self.kept:
            found = chunk.parameter_gradients(list(parameters.values()), exact=exact)
            for name, part in zip(parameters, found, strict=True):
                total[name] = total[name].add_(part) if name in total else part
        return total

    def _second(self, module: LightningModule) -> list[Chunk]:
        """The chunks of the training data; empty without."""
        probe = self.second
        if probe is None:
            return []
        return [
            Chunk(module, batch, rows, rows / probe.n_rows, self.loss, layout=probe.layout)
            for batch, rows in zip(probe.chunks, probe.rows, strict=True)
        ]

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The loss along steps of the history, and where the steps end."""
        return step_figure(rows, section)


def _loss(chunks: Sequence[Chunk]) -> float:
    """The loss of all chunks."""
    return sum(float(chunk.loss().detach()) for chunk in chunks)


def _rounding(parameters: Iterable[Tensor]) -> float:
    """What losses and steps are rounded by, relative to their size: the coarsest dtype counts."""
    return 8 * max((torch.finfo(p.dtype).eps for p in parameters), default=0.0)


def _along(losses: Sequence[float], ending: str, rounding: float) -> dict[str, float]:
    """The change by a step, where it ends, and the changes along it; NaN without losses."""
    changes = [loss - losses[0] for loss in losses] or [math.nan] * len(SCALES)
    places = torch.tensor(SCALES, dtype=torch.float64)
    alpha = (
        step_alpha(places, torch.tensor(losses).double(), max(rounding, 1e-6))
        if losses
        else math.nan
    )
    along = {f"along{ending}/{100 * s:03.0f}": x for s, x in zip(SCALES, changes, strict=True)}
    return {f"change{ending}": changes[2], f"alpha{ending}": float(alpha), **along}


def _length(direction: Mapping[str, Tensor]) -> float:
    return float(joint_norm([x.detach() for x in direction.values()]))


def _product(
    step: Mapping[str, Tensor], gradient: Mapping[str, Tensor], length: float, slope: float
) -> float:
    """Cosine of two directions of these lengths."""
    return sum(
        float(torch.sum((u.float() / length) * (gradient[name].float() / slope)))
        for name, u in step.items()
    )


def _beside(
    step: Mapping[str, Tensor],
    gradient: dict[str, Tensor],
    end: float,
    length: float,
    slope: float,
) -> dict[str, Tensor]:
    """From where the parameters are to the end of a gradient step, in the gradient's memory."""
    return {
        name: g.mul_(-length / slope).sub_(step[name], alpha=end) for name, g in gradient.items()
    }

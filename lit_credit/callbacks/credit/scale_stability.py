"""Flags for runs whose accuracy and cosine may mislead."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import layer_tag
from lit_credit.callbacks.base.stream import StreamDiagnostic
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.credit.reference import DoubleReference
from lit_credit.functional import growth, sample_norms, scale_flags
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.plotting import Level, layer_curves
from lit_credit.runs.history import Row
from lit_credit.utils.ranges import check_range

__all__ = ["ScaleStability"]

_FLAGS = (
    ("scale", "scale_unstable"),
    ("depth", "depth_unused"),
    ("reference", "reference_invalid"),
)


class ScaleStability(StreamDiagnostic):
    """Three flags, each 1 (raised) or 0, with the thresholds of the paper as defaults.

    - ``stability/norm`` is the median ``|h_L|`` of the probe, and ``stability/growth`` its ratio to
      the first measurement; ``stability/scale_unstable`` is raised above ``growth_limit``;
    - ``stability/depth_unused`` is raised if ``metric`` is less than ``accuracy_margin`` above
      ``frozen_accuracy``, the accuracy of the same net with its units frozen
      (:class:`lit_credit.rules.FrozenUnits`); it is undefined without ``frozen_accuracy``;
    - ``stability/reference_cosine``: the smallest over layers of the mean cosine of the float32 and
      the float64 gradient; ``stability/reference_invalid`` is raised below ``reference_limit``.
      Means use the samples where the cosine is defined; if it is defined for no sample of a layer,
      cosine and flag are NaN. ``stability/reference_share_below`` is the share of the float64
      pass's operations that were computed in lower precision; see
      :class:`lit_credit.callbacks.ReferenceValidity`.

    Costs as much as :class:`lit_credit.callbacks.ReferenceValidity`. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the other arguments.

    Args:
        growth_limit: largest growth that raises no flag.
        frozen_accuracy: accuracy of the net with frozen units, a fraction; None if not known.
        accuracy_margin: smallest gain over ``frozen_accuracy`` that raises no flag, a fraction.
        reference_limit: smallest cosine that raises no flag.
        metric: the logged metric to compare with ``frozen_accuracy``, an accuracy: large values
            are better. In ``trainer.test`` its ``val/`` is read as ``test/``.

    Raises:
        ValueError: if a threshold is out of its range; accuracies are fractions.
        MisconfigurationException: if no units are given or declared, and the net does not have
            exactly one stack of blocks; see :class:`lit_credit.callbacks.base.StreamDiagnostic`.

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss: Evaluating Feedback Alignment via
        Scale Stability, Reference Validity, and Depth Utility, 2026, arXiv 2606.21126.
    """

    name = "scale_stability"
    section = "stability"
    charts = ("growth", "reference_cosine")
    steps_of_a_batch = 4.0
    reads_training = True
    options = (
        "growth_limit",
        "frozen_accuracy",
        "accuracy_margin",
        "reference_limit",
        "metric",
    )

    def __init__(
        self,
        *,
        growth_limit: float = 50.0,
        frozen_accuracy: float | None = None,
        accuracy_margin: float = 0.02,
        reference_limit: float = 0.99,
        metric: str = "val/accuracy",
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
        check_range(0, finite=False, growth_limit=growth_limit)  # inf sets no limit
        check_range(0, 1, frozen_accuracy=frozen_accuracy, accuracy_margin=accuracy_margin)
        check_range(-1, 1, reference_limit=reference_limit)
        self.growth_limit = growth_limit
        self.frozen_accuracy = math.nan if frozen_accuracy is None else frozen_accuracy
        self.accuracy_margin = accuracy_margin
        self.reference_limit = reference_limit
        self.metric = metric
        self._first: float | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the points of the residual stream."""
        super().prepare(trainer, module)
        self._reference = DoubleReference(self)
        self._first = None

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Prove that no operation of the float64 pass is computed below float64."""
        return {**super().prove(chunk), **self._reference.prove(chunk, self.stream(chunk))}

    def update(self, chunk: Chunk) -> None:
        """The norms and the cosines of a chunk's samples."""
        points = self.stream(chunk)
        gradients = chunk.gradients(points)
        self.gathered.add("norm", sample_norms(gradients[points[-1]][0]))
        double = self._reference.compare(chunk, gradients)
        self.gathered.add("share_below", torch.tensor([double.share_below]))
        for index, cosines in enumerate(double.cosines):
            self.gathered.add(layer_tag(index), cosines)

    def compute(self) -> dict[str, float]:
        """The quantities and their flags."""
        of = dict(self.gathered.items())
        share, norm = float(of.pop("share_below").max()), float(of.pop("norm").median())
        grown = float(growth(norm, self._first_norm(norm)))
        # Not `min`: whether it drops a NaN depends on the order.
        means = [over_samples(cosines).mean for cosines in of.values()]
        reference = float(torch.tensor(means).min())
        flags = scale_flags(
            grown,
            # Metrics are float32, in which 0.37 is a little less than 0.35 + 0.02.
            round(self._metric, 7),
            self.frozen_accuracy,
            reference,
            growth_limit=self.growth_limit,
            accuracy_margin=self.accuracy_margin,
            reference_limit=self.reference_limit,
        )
        return {
            "norm": norm,
            "growth": grown,
            "reference_cosine": reference,
            "reference_share_below": share,
            **flags._asdict(),
        }

    def measure_at(self, step: int, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        """Read the metric on every process, and measure on rank zero."""
        self._read_metric(trainer)
        super().measure_at(step, trainer, module, epoch)

    def conclude(self, trainer: Trainer, module: LightningModule) -> None:
        """Read the metric too: the figure of a resumed run that had ended needs a measurement."""
        self._read_metric(trainer)
        super().conclude(trainer, module)

    def _at_first_batch(self, trainer: Trainer, module: LightningModule) -> None:
        """Nothing: a validation knows its metric only at its end."""

    def _at_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._evaluate(trainer, module)
        super()._at_end(trainer, module)

    def _read_metric(self, trainer: Trainer) -> None:
        # On every rank: reading an epoch's metric reduces it over all processes. Rank zero alone
        # measures, and would wait for the others forever.
        metric = self.metric
        if self._stage == "test" and metric.startswith("val/"):
            metric = metric.replace("val/", "test/", 1)
        self._metric = float(trainer.callback_metrics.get(metric, math.nan))

    def _first_norm(self, now: float) -> float:
        if self._first is None:
            values: dict[str, float] = self._rows[0]["values"] if self._rows else {}
            self._first = next((x for tag, x in values.items() if tag.endswith("/norm")), now)
        return self._first

    def state_dict(self) -> dict[str, Any]:
        """The place of the rows so far, and the first norm, with which all others are compared."""
        return {**super().state_dict(), "first_norm": self._first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the rows and the first norm of a resumed run."""
        super().load_state_dict(state_dict)
        self._first = state_dict.get("first_norm")

    def remember(self, state: Mapping[str, Any]) -> None:
        """Take the first norm of the run."""
        super().remember(state)
        self._first = state.get("first_norm", self._first)

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Growth over epochs with its limit; the title tells the flags of the last row."""
        last = rows[-1]["values"]
        flags = [f"{name} {_flag(last.get(f'{section}/{tag}', math.nan))}" for name, tag in _FLAGS]
        return layer_curves(
            rows,
            f"{section}/growth",
            names=["readout's input"],
            ylabel=r"$\|h_L\|$ over its first value",
            title=f"Growth of the residual stream\nflags at the end: {', '.join(flags)}",
            levels=[Level(self.growth_limit, f"limit {self.growth_limit:g}", "above")],
        )


def _flag(value: float) -> str:
    return "n/a" if math.isnan(value) else "raised" if value else "clear"

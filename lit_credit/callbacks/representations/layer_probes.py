"""The diagnostic ``LayerProbes``: what can be read off each unit."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import layer_tag, point_text
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.representations.layer_probes_figure import layer_probes_figure
from lit_credit.callbacks.representations.probe_targets import ProbeTargets, probe_targets
from lit_credit.callbacks.representations.unit_features import (
    features,
    point_names,
    points_to_read,
    rows_first,
    rows_for,
)
from lit_credit.callbacks.representations.unit_probe import UnitProbe
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.batch_loss import LossFunction, name_of
from lit_credit.inspect.batch_targets import given_target, unshifted_labels
from lit_credit.inspect.capture import Point, capture
from lit_credit.inspect.channels import feature_dim
from lit_credit.protocols import is_rule
from lit_credit.runs.history import Row
from lit_credit.utils.nested import cloned, described, first_tensor
from lit_credit.utils.ranges import check_choice, check_range, check_sizes
from lit_credit.utils.short_text import choice

__all__ = ["LayerProbes"]

Labels = Callable[[Any], Any]
"""A function of a batch that returns the labels."""

_NET = Point("net", "output")


class LayerProbes(ProbeDiagnostic):
    r"""What can be read off each unit? A linear probe in closed form, without training.

    Half of the probe's rows fits a ridge regression from the output of each unit to the targets,
    see :func:`lit_credit.functional.ridge_probe`; the other half tests it. Logs

    - ``probe/accuracy/L00`` ..: the accuracy of the probe of each unit, if targets are classes
      (whole numbers, or rows that are distributions); classes below 0 do not count;
    - ``probe/accuracy_chance``: that of the most frequent class of the training half;
    - ``probe/accuracy_net``: that of the net's own output on the same rows, for rules;
    - ``probe/r2/L00`` .. and ``probe/r2_net`` instead, if targets are other numbers: the share of
      the variance that is predicted, mean over outputs; it is 0 for the mean and may be negative;
    - ``probe/accuracy_best``, ``probe/r2_best``: the largest of all units.

    Targets (N, T), such as next tokens, are read off each position, outputs (N, T, C), (N, C, T) or
    (N T, C). Targets (N,) are read off the whole output, flattened; an output with more than
    ``max_features`` numbers is averaged over neighbouring positions first, onto the finest grid
    that fits. Positions are T of (N, T, C), H and W of (N, C, H, W) and, if H = W, of (N, H, W, C).
    A unit whose output has no row for each target is NaN.

    The halves are drawn once for each number of rows, so they do not depend on ``chunk_size`` or
    the step; positions of one row share a half. Of more than 1024 classes the most frequent ones of
    the training half are told apart, and all others count as wrong. The standard error of an
    accuracy is at most 0.5 / sqrt(tested rows): 0.022 for 1024 rows. Rows that repeat or overlap
    raise all accuracies.

    Costs two forwards on ``n_samples`` rows, and for each unit of d features n d min(n, d) + d^3
    multiplications in float64. Holds d min(n, d) numbers in float64 for each unit.

    See :class:`lit_credit.callbacks.ProbeDiagnostic` for the other arguments.

    Args:
        labels: key of the targets in a batch that is a mapping, or a function (batch) -> targets;
            in YAML its import path. None takes ``task.target(batch)`` of a rule, else ``target``,
            ``labels``, ``label`` or ``y`` of a mapping, or the second item of a tuple. Labels that
            repeat ``input_ids`` are shifted by one position, as Hugging Face's causal models do.
        read: ``units`` for their outputs, or ``stream`` for the residual stream: the inputs of the
            blocks, and last that of the readout. They differ where a block returns what it adds.
        ridge: strength of the regularisation, relative to the variance of a standardised feature.
        max_features: largest number of features of a unit's row before positions are averaged.

    Raises:
        ValueError: if ``ridge`` is not above 0, ``max_features`` is below 1, or ``labels`` is
            not a key or a function of one argument.
        MisconfigurationException: before the first step, if there are no targets, or no unit's
            output has a row for each of them.

    Example::

        trainer = Trainer(callbacks=[LayerProbes(units=["encoder.layers.*"], labels="species")])

    Reference:
        Alain, Bengio, Understanding intermediate layers using linear classifier probes, 2016,
        arXiv 1610.01644, with ridge regression in place of trained classifiers.
    """

    name = "layer_probes"
    section = "probe"
    over_layers = ("min", "median", "max")
    charts = ("accuracy",)
    needs_loss = False
    options = ("read", "ridge", "max_features")
    steps_of_a_batch = 1.0
    headline = (
        Headline(
            "probe_accuracy",
            "accuracy",
            layers="last",
            head="probe, last unit",
            form=".3f",
            order=45,
            better="up",
            panel=Panel(
                "Linear probe of the last unit", "fraction correct, half of the probe", reach=(0, 1)
            ),
        ),
        Headline(
            "probe_r2", "r2", layers="last", head="probe R2, last unit", form=".3f", better="up"
        ),
    )

    def __init__(
        self,
        *,
        labels: Labels | str | None = None,
        read: Literal["units", "stream"] = "units",
        ridge: float = 0.1,
        max_features: int = 2048,
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
        _check_labels(labels)
        check_choice(["units", "stream"], read=read)
        check_range(above=0, ridge=ridge)
        check_sizes(max_features=max_features)
        self.labels = labels
        self.read = read
        self.ridge = ridge
        self.max_features = max_features
        self._points: list[Point] = []

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments that affect the rows, by name."""
        labels = name_of(self.labels) if callable(self.labels) else self.labels
        return super().arguments | ({} if labels is None else {"labels": labels})

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the points."""
        self._points = points_to_read(self, module, self.units, self.read)
        self.layer_texts = list(map(point_text, self._points))

    def reset(self) -> None:
        """Forget the chunks."""
        super().reset()
        self._parts: list[tuple[Chunk, Tensor]] = []

    def update(self, chunk: Chunk) -> None:
        """Keep a chunk with its targets. :meth:`compute` runs it twice, once for each half."""
        self._parts.append((chunk, self._labels_of(chunk)))

    def compute(self) -> dict[str, float]:
        """``<kind>/L..``, ``<kind>_best``, ``<kind>_net`` and ``accuracy_chance``."""
        targets = probe_targets([labels for _, labels in self._parts])
        found = self._tested(targets, self._fitted(targets))
        own, kind = found.pop(_NET, None), targets.kind
        values = {f"{kind}/{layer_tag(i)}": found[p] for i, p in enumerate(self._points)}
        known = [value for value in found.values() if not math.isnan(value)]
        values[f"{kind}_best"] = max(known, default=math.nan)
        values |= {} if own is None else {f"{kind}_net": own}
        return values | ({"accuracy_chance": targets.chance} if kind == "accuracy" else {})

    def _fitted(self, targets: ProbeTargets) -> dict[Point, UnitProbe]:
        """The probe of each unit."""
        rows, outputs = int(targets.trained.sum()), targets.n_outputs
        probes = {point: UnitProbe(rows, outputs, self.ridge) for point in self._points}
        seen: dict[Point, str] = {}
        for chunk, shape, some, first in self._placed(targets, targets.trained):
            values, encoded = chunk.values(self._points), targets.encoded(some + first)
            seen |= {p: f"{p.module} {tuple(v.shape)}" for p, v in values.items() if len(v)}
            for point, x in self._features(chunk, values, shape).items():
                probes[point].add(None if x is None else x[some.to(x.device)], encoded)
        odd = [seen[point] for point, probe in probes.items() if probe.undefined and point in seen]
        self._check_rows(odd, targets, all(probe.undefined for probe in probes.values()))
        for probe in probes.values():
            probe.fit()
        return probes

    def _tested(
        self, targets: ProbeTargets, probes: Mapping[Point, UnitProbe]
    ) -> dict[Point, float]:
        """The quality of each unit's probe, and of the net's own output if it is known."""
        sums: dict[Point, Tensor] = {}
        for chunk, shape, some, first in self._placed(targets, targets.tested):
            with capture(chunk.module, [_NET] if is_rule(chunk.module) else []) as passed:
                values = chunk.values(self._points)
            scores = {
                point: targets.scores(probes[point].predict(x, some), some + first)
                for point, x in self._features(chunk, values, shape).items()
            }
            own = targets.of_net(passed[_NET], shape, some) if _NET in passed else None
            if own is not None:
                order = torch.arange(own.shape[1])
                scores[_NET] = targets.scores(own, some + first, order)
            for point, score in scores.items():
                sums[point] = score.sum(0) + sums.get(point, 0)
        return {point: targets.quality(total) for point, total in sums.items()}

    def _placed(
        self, targets: ProbeTargets, half: Tensor
    ) -> Iterator[tuple[Chunk, tuple[int, ...], Tensor, int]]:
        """Each chunk, the shape of its rows, those of a half, and the place of its first row."""
        first = 0
        for (chunk, _), shape in zip(self._parts, targets.shapes, strict=True):
            count = math.prod(shape)
            yield chunk, shape, half[first : first + count].nonzero()[:, 0], first
            first += count

    def _features(
        self, chunk: Chunk, values: Mapping[Point, Tensor], shape: tuple[int, ...]
    ) -> dict[Point, Tensor | None]:
        """Features with a row for each target; None if the value at a point has no such rows."""
        found: dict[Point, Tensor | None] = {}
        values = rows_first(chunk, values, shape[0])
        for point in self._points:
            rows = rows_for(values[point], shape) if point in values else None
            if rows is None:
                found[point] = None
                continue
            channel = feature_dim(chunk.module, point, rows) if len(shape) == 1 else None
            found[point] = features(rows, self.max_features, channel)
        return found

    def _check_rows(self, odd: Sequence[str], targets: ProbeTargets, all_odd: bool) -> None:
        """Refuse outputs without a row for each target if all are so; warn if some are."""
        if not odd:
            return
        text = (
            f"targets have shape {tuple(targets.shapes[-1])}, and the outputs of some units have "
            f"no row for each of them, or a varying number of features: {choice(odd)}"
        )
        if all_odd:
            raise MisconfigurationException(
                f"LayerProbes: {text}. Choose other `units`, or `labels` with one entry for each "
                "row (N,), for each position (N, T), or, for several labels of a row, (N, K) as "
                "floating-point numbers."
            )
        self.attempts.tell(max(self._last_step, 0), text)

    def _labels_of(self, chunk: Chunk) -> Tensor:
        """The targets of a chunk.

        Raises:
            MisconfigurationException: if there are none.
        """
        module, batch, labels = chunk.module, cloned(chunk.batch), self.labels
        if labels is None:
            found, what = given_target(module, batch), "no target"
        elif callable(labels):
            found, what = labels(batch), f"no tensor of labels by `labels` ({name_of(labels)})"
            found = torch.as_tensor(found) if isinstance(found, np.ndarray) else found
        else:
            found = first_tensor(batch.get(labels)) if isinstance(batch, Mapping) else None
            what = f"no labels {labels!r}"
        if not isinstance(found, Tensor) or found.ndim == 0:
            raise MisconfigurationException(
                f"LayerProbes found {what} in the batches of {type(module).__name__}, which are "
                f"{described(batch)}. Set `labels` to a key of the batch, or to a function (batch) "
                "-> tensor of (N,) or (N, T) whole numbers, or of (N, ...) other numbers."
            )
        return unshifted_labels(found, batch)

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The quality of each unit's probe, at the start, on the way and at the end."""
        return layer_probes_figure(rows, section, point_names(self._points))


def _check_labels(labels: Any) -> None:
    """Refuse what is not a key, nor a function that can be called with a batch."""
    expected = "expected a key of the batch, or a function (batch) -> targets"
    if labels is None or (isinstance(labels, str) and labels):
        return
    if not callable(labels):
        raise ValueError(f"`labels` is {labels!r:.100}, {expected}.")
    try:
        signature(labels).bind(None)
    except TypeError as error:
        raise ValueError(
            f"`labels` is {name_of(labels)}{signature(labels)}, {expected}."
        ) from error
    except ValueError:  # a C function: the call will show
        return

"""The diagnostic ``Representations``: do two layers know the same?"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import layer_tag, point_text
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.representations.representations_figure import representations_figure
from lit_credit.callbacks.representations.unit_features import (
    double,
    features,
    point_names,
    points_to_read,
    rows_first,
    sample_rows,
)
from lit_credit.functional.representations import centred_gram, cka_matrix
from lit_credit.headlines import Headline
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.inspect.capture import Point
from lit_credit.inspect.channels import feature_dim
from lit_credit.runs.files import spared, write_files
from lit_credit.runs.history import Row
from lit_credit.runs.representations import SavedGrams, find_grams
from lit_credit.utils.ranges import check_choice, check_sizes
from lit_credit.utils.short_text import choice

__all__ = ["Representations"]


class Representations(ProbeDiagnostic):
    r"""Do two layers, or two runs, know the same? Linear CKA, debiased.

    The CKA of two representations of the same samples is 1 if they are equal up to a rotation, an
    offset and a scale, and about 0 if they are independent, see
    :func:`lit_credit.functional.linear_cka`. Logs

    - ``cka/initial/L00`` ..: each unit's output against its own at the first measurement of the
      run, and ``cka/initial_mean``, the mean over units;
    - ``cka/neighbours``: the mean over units of the CKA with the next unit, and ``cka/ends``, the
      CKA of the first with the last unit.

    The figure shows the last measurement: all units against all, and against the first measurement.

    A sample is one row: (N, T, C) and (N, C, H, W) are flattened. An output with more than
    ``max_features`` numbers is averaged over neighbouring positions first, as in
    :class:`lit_credit.callbacks.LayerProbes`. Values are those of the whole probe and do not depend
    on ``chunk_size``. A unit is NaN if its output has no row for each sample, or does not vary.
    Fewer than 4 samples have no CKA.

    At the end ``<log_dir>/representations.npz`` holds the centred Gram matrices of the last
    measurement, and a digest of the probe; ``lit-credit compare RUNS --representations`` compares
    runs by them. ``<log_dir>/representations_initial.npz`` holds those of the first measurement,
    which a resumed run reads there. Each takes 2 n^2 bytes a unit: 0.5 MB for 512 samples.

    Costs one forward on ``n_samples`` rows, by default 512, and n^2 d multiplications a unit in
    float64. Holds n ``max_features`` numbers a unit while it measures, and 2 n^2 bytes a unit
    always.

    See :class:`lit_credit.callbacks.ProbeDiagnostic` for the other arguments.

    Args:
        read: ``units`` for their outputs, or ``stream`` for the residual stream: the inputs of the
            blocks, and last that of the readout. They differ where a block returns what it adds.
        max_features: largest number of features of a unit's row before positions are averaged.

    Raises:
        ValueError: if ``max_features`` is below 1 or ``read`` is not one of the two words.
        MisconfigurationException: before the first step, if no unit's output has a row for each
            sample.

    Example::

        trainer = Trainer(callbacks=[Representations(units=["encoder.layers.*"])])

    Reference:
        Kornblith, Norouzi, Lee, Hinton, Similarity of Neural Network Representations Revisited,
        2019, arXiv 1905.00414; Nguyen, Raghu, Kornblith, Do Wide and Deep Networks Learn the Same
        Things?, 2021, arXiv 2010.15327, for the debiased estimator, here of the whole probe.
    """

    name = "representations"
    section = "cka"
    over_layers = ("min", "median", "max")
    charts = ("initial",)
    needs_loss = False
    options = ("read", "max_features")
    default_n_samples = 512
    steps_of_a_batch = 0.6
    headline = (
        Headline("cka_initial", "initial_mean", head="CKA to start", form=".3f", order=46),
        Headline("cka_ends", "ends", head="CKA first, last unit", form=".3f", order=47),
    )

    def __init__(
        self,
        *,
        read: Literal["units", "stream"] = "units",
        max_features: int = 4096,
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
        check_choice(["units", "stream"], read=read)
        check_sizes(max_features=max_features)
        self.read = read
        self.max_features = max_features
        self._points: list[Point] = []
        self._forget_grams()

    def _forget(self) -> None:
        super()._forget()
        self._forget_grams()

    def _forget_grams(self) -> None:
        self._initial: SavedGrams | None = None
        self._last: SavedGrams | None = None
        self._told: dict[str, Any] | None = None
        self._digest = ""

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the points."""
        self._points = points_to_read(self, module, self.units, self.read)
        self.layer_texts = list(map(point_text, self._points))

    # The first measurement

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the probe, and find the first measurement of a resumed run."""
        super().begin(trainer, module)
        self._digest = "" if self.probe is None else self._measured_by(self.probe.digest())
        if self._evaluates and self._told is None and self._of_fit is not None:
            self._told = self._of_fit["_told"]
        if self._told is not None:
            self._take_initial(self._told, trainer.ckpt_path)

    def _measured_by(self, digest: str) -> str:
        """The digest of the probe, with the arguments that differ from their defaults."""
        # Those of files without a word about them; so they stay if a default changes.
        usual = {"read": "units", "max_features": 4096}
        unusual = [f"{k}={v}" for k, x in usual.items() if (v := getattr(self, k)) != x]
        return " ".join([digest, *unusual]) if digest else ""

    def _take_initial(self, told: Mapping[str, Any], checkpoint: Any) -> None:
        """Read the first measurement of the run; it does not count for other data."""
        own = None if self._evaluates else self._initial_file
        found = find_grams(told, own, checkpoint)
        if found is None:
            rank_zero_warn(
                f"{type(self).__name__}: {told['path']}, the first measurement of this run, is not "
                "there any more or was changed, so that its `initial` values are n/a."
            )
        elif found.digest == self._digest:
            self._initial = found
            if own is not None and not own.exists():
                self._write(own, found.to_bytes())

    @property
    def _initial_file(self) -> Path | None:
        return self._folder and self._folder / f"{self.stem}_initial.npz"

    def _keep_initial(self, grams: SavedGrams) -> None:
        """Let this measurement be the first one of the run."""
        self._initial, path = grams, self._initial_file
        if path is not None:
            data = grams.to_bytes()
            self._write(path, data)
            self._told = {"path": str(path.absolute()), "crc": zlib.crc32(data)}

    def _write(self, path: Path, data: bytes) -> None:
        with spared(path):
            write_files(path.parent, {path.name: data})

    def state_dict(self) -> dict[str, Any]:
        """The place of the rows, and that of the first measurement."""
        return {**super().state_dict(), "initial": self._told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the rows and the first measurement of a resumed run."""
        super().load_state_dict(state_dict)
        self._told = state_dict.get("initial")

    def remember(self, state: Mapping[str, Any]) -> None:
        """Take the first measurement of the run if it was made of the same data."""
        super().remember(state)
        if self._initial is None and state.get("initial") is not None:
            found = find_grams(state["initial"], None)
            if found is not None and found.digest == self._digest:
                self._initial = found

    # A measurement

    def reset(self) -> None:
        """Forget the features."""
        super().reset()
        self._features: dict[Point, list[Tensor | None]] = {point: [] for point in self._points}
        self._shapes: dict[Point, tuple[int, ...]] = {}

    def update(self, chunk: Chunk) -> None:
        """Keep the features of a chunk's samples."""
        rows = chunk.rows if chunk.layout is not None or chunk.rows > 1 else None
        values = chunk.values(self._points)
        values = values if rows is None else rows_first(chunk, values, rows)
        for point in self._points:
            value = values.get(point)
            x = None if value is None or not len(value) else sample_rows(value, rows)
            if value is not None and len(value):
                self._shapes[point] = tuple(value.shape)
            self._features[point].append(None if x is None else self._read(chunk, point, x))

    def _read(self, chunk: Chunk, point: Point, x: Tensor) -> Tensor:
        return features(x, self.max_features, feature_dim(chunk.module, point, x))

    def compute(self) -> dict[str, float]:
        """``initial/L..``, ``initial_mean``, ``neighbours`` and ``ends``."""
        now, rows = self._grams()
        names, step = point_names(self._points), max(self._last_step, 0)
        self._last = SavedGrams(now.numpy(), names, rows, step, self._digest)
        if self._initial is None and self._told is None and not self._evaluates:
            self._keep_initial(self._last)
        self._matrix = cka_matrix(now, now)
        against = self._against_initial(now)
        values = {f"initial/{layer_tag(i)}": x for i, x in enumerate(against.tolist())}
        values["initial_mean"] = over_samples(against).mean
        values["neighbours"] = over_samples(self._matrix.diagonal(1)).mean
        return {**values, "ends": self._matrix[0, -1].item()}

    def _grams(self) -> tuple[Tensor, int]:
        """The upper triangle of each centred Gram matrix, (l, k) float32, and the samples."""
        counts = [sum(map(len, parts)) for p in self._points if (parts := self._whole(p))]
        rows = max(counts, default=0)
        upper = torch.triu_indices(rows, rows, 1)
        found, odd = [], []
        for point in self._points:
            parts = self._whole(point)
            self._features[point] = []
            if parts is None or sum(map(len, parts)) != rows:
                odd.append(point)
                found.append(torch.full((upper.shape[1],), torch.nan))
                continue
            gram = centred_gram(double(torch.cat(parts))).cpu()
            found.append(gram[upper[0], upper[1]].float())
        self._check_rows([point for point in odd if point in self._shapes], rows)
        return torch.stack(found), rows

    def _whole(self, point: Point) -> list[Tensor] | None:
        """The features of all chunks if they are of one width."""
        parts = [part for part in self._features[point] if part is not None]
        is_whole = len(parts) == len(self._features[point])
        return parts if is_whole and len({part.shape[1] for part in parts}) == 1 else None

    def _check_rows(self, odd: Sequence[Point], rows: int) -> None:
        """Refuse outputs without a row for each sample if all are so; warn if some are."""
        if not odd:
            return
        shapes = choice([f"{point.module} {self._shapes[point]}" for point in odd])
        text = (
            f"the outputs of some units have no row for each sample of the probe, or a varying "
            f"number of features: {shapes}"
        )
        if not rows:
            raise MisconfigurationException(f"Representations: {text}. Choose other `units`.")
        self.attempts.tell(max(self._last_step, 0), text)

    def _against_initial(self, now: Tensor) -> Tensor:
        """The CKA of each unit with itself at the first measurement, NaN if that is not known."""
        first = self._initial
        if first is None or first.grams.shape != now.shape or first.digest != self._digest:
            return torch.full((len(now),), torch.nan, dtype=torch.float64)
        return cka_matrix(torch.from_numpy(first.grams), now).diagonal()

    # The report

    def _sum_up(self, trainer: Trainer) -> None:
        super()._sum_up(trainer)
        if trainer.is_global_zero and self._folder is not None and self._last is not None:
            self._write(self._folder / f"{self.stem}.npz", self._last.to_bytes())

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """All units against all at the last measurement, and each against the first one."""
        known = None if self._last is None else self._matrix.numpy()
        return representations_figure(rows, section, known, point_names(self._points))

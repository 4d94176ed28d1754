"""The diagnostic ``SubspaceDistance``: does a weight span a reference subspace?"""

import math
from collections.abc import Sequence

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.failures import missing
from lit_credit.functional import (
    leading_directions,
    principal_angles,
    projector_distance,
    projector_distance_null,
)
from lit_credit.functional.log_probs import centred_log_probs
from lit_credit.inspect.contexts import read_contexts
from lit_credit.inspect.matrices import find_unembedding, read_matrices
from lit_credit.plotting import Level, layer_curves
from lit_credit.runs.history import Row
from lit_credit.utils.names import check_units
from lit_credit.utils.ranges import check_range

__all__ = ["SubspaceDistance"]


class SubspaceDistance(Diagnostic):
    r"""How far is the span of a weight's columns from a reference subspace?

    A weight (n, d), such as an unembedding with a row for each of n symbols, and a reference (n, r)
    are both reduced to their leading ``rank`` directions U and V in the space of n symbols. Logs

    - ``subspace/distance/<name>``: :math:`\|U U^\top - V V^\top\|_F`, and ``distance/random``, the
      root mean square of the distance of random subspaces;
    - ``subspace/angle_max/<name>`` and ``subspace/angle_mean/<name>``: their principal angles, in
      degrees.

    The reference is another weight or a tensor of the datamodule. Without either it is the leading
    directions of the centred log-probabilities of the datamodule's ``contexts()`` (see
    :class:`Contexts`): the best span for an unembedding of few features.

    Costs a decomposition of a matrix of n symbols by d or r.

    See :class:`lit_credit.callbacks.Diagnostic` for the other arguments.

    Args:
        reference: name of the weight to compare with, below the module or its ``net``.
        data_reference: name of an attribute of the datamodule, a tensor (n, r), or a method that
            returns one.
        rank: dimensions of the subspaces; None takes the number of columns of the weight or of the
            reference, whichever is smaller.
        centred: remove the all-ones direction first, because the softmax does not depend on it; set
            it to False for weights whose rows are not symbols.
        units: names or patterns of weights; None takes the last ``nn.Linear``.

    Raises:
        ValueError: if both references are given, a name matches nothing, or ``rank`` is below 1 or
            above the number of shared dimensions.
        MisconfigurationException: if there is no reference, or it has another number of rows.

    Example::

        trainer = Trainer(callbacks=[SubspaceDistance(units=["head"], every_n_steps=100)])

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115.
    """

    name = "subspace_distance"
    section = "subspace"
    charts = ("distance", "angle_max", "angle_mean")
    options = ("units", "reference", "data_reference", "rank", "centred")

    def __init__(
        self,
        *,
        reference: str | None = None,
        data_reference: str | None = None,
        rank: int | None = None,
        centred: bool = True,
        units: list[str] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_units(units)
        self.units = units
        if reference is not None and data_reference is not None:
            raise ValueError(
                f"`reference` is {reference!r} and `data_reference` is {data_reference!r}; give "
                "one of them, or none for the log-probabilities of the datamodule's contexts."
            )
        check_range(1, rank=rank)
        self.reference = reference
        self.data_reference = data_reference
        self.rank = rank
        self.centred = centred
        self._names: list[str] = []
        self._trainer: Trainer | None = None
        self._fixed: Tensor | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the weights, and check that the reference fits them."""
        self._trainer = trainer
        default = find_unembedding(module)
        self._names = self.units or ([default] if default is not None else [])
        if not self._names:
            raise missing(self, module, "an nn.Linear", "Set `units` to a weight.")
        self._compare(module)
        # Read the reference again at the first measurement: a resumed run gets its seed after this.
        self._fixed = None

    def update(self, chunk: Chunk) -> None:
        """Compare the present weights with the reference."""
        self._values = self._compare(chunk.module)

    def compute(self) -> dict[str, float]:
        """``distance/<name>``, ``angle_max/<name>``, ``angle_mean/<name>``."""
        return self._values

    def _compare(self, module: LightningModule) -> dict[str, float]:
        values, random = {}, set()
        for name, weight in read_matrices(module, self._names).items():
            own, other, null = self._subspaces(module, name, weight.double())
            random.add(null)
            angles = torch.rad2deg(principal_angles(own, other))
            values[f"distance/{name}"] = projector_distance(own, other).item()
            values[f"angle_max/{name}"] = angles.amax().item()
            values[f"angle_mean/{name}"] = angles.mean().item()
        # Weights of several shapes have no common level.
        values["distance/random"] = random.pop() if len(random) == 1 else math.nan
        return values

    def _subspaces(
        self, module: LightningModule, name: str, weight: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """The two bases, (n, rank) each, and the distance of random subspaces."""
        reference = self._reference(module, weight)
        if len(reference) != len(weight):
            raise MisconfigurationException(
                f"SubspaceDistance: {name!r} has {len(weight)} rows, but the reference has "
                f"{len(reference)}, so that they span subspaces of different spaces. Set "
                "`reference` or `data_reference` to a matrix with a row for each row of the weight."
            )
        space = len(weight) - int(self.centred)
        most = min(weight.shape[1], reference.shape[1], space)
        rank = most if self.rank is None else self.rank
        if not 1 <= rank <= most:
            raise ValueError(
                f"`rank` is {rank}, but {name!r} and the reference share {most} dimensions at "
                "most. Lower it."
            )
        own, other = (
            leading_directions(m - m.mean(0) if self.centred else m, rank)
            for m in (weight, reference)
        )
        return own, other, projector_distance_null(space, rank)

    def _reference(self, module: LightningModule, weight: Tensor) -> Tensor:
        """The reference (n, r)."""
        if self.reference is not None:
            (found,) = read_matrices(module, [self.reference], "reference").values()
            return found.double()
        if self._fixed is None:
            self._fixed = self._of_data()
        return self._fixed.to(weight)

    def _of_data(self) -> Tensor:
        trainer = self._trainer
        if trainer is None:
            raise RuntimeError("SubspaceDistance was not set up.")
        if self.data_reference is None:
            # The vectors themselves, not an orthonormal basis: a basis would lose their order when
            # it is reduced to a rank.
            return centred_log_probs(read_contexts(trainer).rows).mT
        data = getattr(trainer, "datamodule", None)
        found = getattr(data, self.data_reference, None)
        found = found() if callable(found) else found
        if not isinstance(found, Tensor) or found.ndim != 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise MisconfigurationException(
                f"`data_reference` is {self.data_reference!r}, which {type(data).__name__} has as "
                f"{shape}, expected a tensor (n, r). Name another attribute of the datamodule."
            )
        return found.detach().double()

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Distances over training; a dashed line is the distance of random subspaces."""
        tag = f"{section}/distance/random"
        random = rows[-1]["values"].get(tag, math.nan)
        own = [{**r, "values": {t: v for t, v in r["values"].items() if t != tag}} for r in rows]
        return layer_curves(
            own,
            f"{section}/distance/",
            ylabel="distance of projectors",
            title="Span of the weight against the reference",
            log=False,
            reach=(0.0, 0.0),
            levels=[Level(random, "random")],
        )

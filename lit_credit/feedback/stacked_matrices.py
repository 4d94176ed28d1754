"""Feedback matrices of all units in one tensor, drawn when they are first used."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.feedback.sizes import check_matrix_sizes
from lit_credit.utils.ranges import check_range, check_sizes
from lit_credit.utils.short_text import choice

__all__ = ["StackedMatrices"]

_REMEDY = (
    "Set `error` to 'per_position' (one row a channel, the same at every position); draw matrices "
    "of low `rank`; for many classes set DFA's `error_at` to 'readout', with a last unit that ends "
    "behind the pooling ('layer4->fc'); or choose units with smaller outputs."
)


class StackedMatrices(LazyBuffers):
    """A matrix (F, E) for each unit, F its features and E the entries of an error.

    A matrix is drawn when its unit first runs, because its shape is not known before; the seed and
    the name of its unit determine its values. ``matrix`` stacks the rows of all matrices in the
    order of the units. ``widths`` counts the rows of each matrix, 0 if it is not drawn yet.

    Args:
        units: names of the units, in forward order.
        distribution: distribution of the entries; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on every matrix.
        seed: seed of the matrices' own generator.
        shared: True gives all units the same matrix (they must have equal sizes); a dict maps a
            unit to the unit whose matrix it uses.
        rank: rank of the matrices, which then are Q_l P, with one ``projection`` P for all and the
            Q_l in ``matrix``; None draws full matrices.
        learned: ``matrix`` is a parameter.

    Raises:
        ValueError: if an argument is invalid.
    """

    matrix: Tensor | None
    widths: Tensor | None
    projection: Tensor | None

    def __init__(
        self,
        units: Sequence[str],
        distribution: Distribution,
        scale: float,
        seed: int,
        shared: bool | Mapping[str, str],
        rank: int | None,
        learned: bool,
    ) -> None:
        super().__init__()
        check_sizes(rank=rank)
        if distribution in ("weight", "weight_std"):
            raise ValueError(
                f"`distribution` is {distribution!r}, but direct feedback has no weight of its "
                "shape. Choose normal, uniform, kaiming, xavier, orthogonal or constant."
            )
        check_range(scale=scale, seed=seed)
        self.source = _sources(units, shared)
        self._order = list(dict.fromkeys(self.source.values()))
        self.distribution: Distribution = distribution
        self.scale = scale
        self.seed = seed
        self.rank = rank
        self.learned = learned
        if learned:
            self.register_parameter("matrix", None)
        else:
            self.register_buffer("matrix", None)
        self.register_buffer("widths", None)
        self.register_buffer("projection", None)
        self._serves = Counter(self.source.values())
        self._drawn: dict[str, int] | None = None  # `widths` without a wait for the device

    def matrices(self, widths: Mapping[str, int], rows: Tensor) -> dict[str, Tensor]:
        """The matrices of the units that ran; matrices that were never used are drawn now."""
        if not widths:
            return {}
        drawn = self.known_widths(widths)
        needed, errors = {**drawn, **widths}, rows.shape[-1]
        changed = any(needed[name] != width for name, width in drawn.items())
        own = (sum(drawn.values()), errors)
        if self.matrix is not None and (changed or self.matrix.shape != own):
            raise ValueError(
                f"the feedback matrices are {tuple(self.matrix.shape)}, but the units' outputs and "
                f"the error need {(sum(needed.values()), errors)}. They were drawn for the first "
                "batch or loaded from a checkpoint: keep the shapes of net and data, or set "
                "`error` to 'per_position' where the number of positions varies."
            )
        if self.matrix is None or len(needed) > len(drawn):
            # Training could not use a tensor that was made under inference_mode.
            with torch.inference_mode(False):
                drawn = self._draw_missing(widths, drawn, errors)
        if self.matrix is not None and self.matrix.device != rows.device and not self.learned:
            self.matrix = self.matrix.to(rows.device)
        return self._by_name(drawn, rows.dtype)

    def projected(self, rows: Tensor) -> Tensor:
        """Rows (..., E) of the error as they meet ``matrix``: (..., r) with a rank."""
        if self.rank is None:
            return rows
        size = self.rank, rows.shape[-1]
        if self.rank > rows.shape[-1]:
            raise ValueError(
                f"`rank` is {self.rank}, but the error has {rows.shape[-1]} entries, so that full "
                "matrices are smaller. Leave `rank` out, or take a smaller one."
            )
        if self.projection is None:
            with torch.inference_mode(False):  # training could not use it otherwise
                seed = derive_seed(self.seed, "projection of the error")
                self.projection = draw_feedback(size, fan_in=size[1], fan_out=size[0], seed=seed)
        if self.projection.shape != size:
            raise ValueError(
                f"the projection of the error is {tuple(self.projection.shape)}, but the error and "
                f"`rank` need {size}. It was drawn for the first batch or loaded from a "
                "checkpoint: keep `rank` and the shapes of net and data."
            )
        if self.projection.device != rows.device:
            self.projection = self.projection.to(rows.device)
        return linear(rows, self.projection.to(rows.dtype))

    def known_widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Rows of the matrices that are drawn, in the order of the units."""
        if self.matrix is None:
            return {}
        if self._drawn is None and self.widths is not None:
            self._drawn = self._saved_widths(self.widths)
        if self._drawn is None or sum(self._drawn.values()) != len(self.matrix):
            # From a checkpoint without `widths`: all units ran when the matrices were drawn.
            idle = [name for name in self._order if name not in widths]
            if idle:
                raise ValueError(
                    f"units {choice(idle)} did not run in this step, and the feedback matrices "
                    "come from a checkpoint that does not tell which rows are theirs, as of "
                    "lit_credit 0.3. Begin this run anew."
                )
            self._drawn = {name: widths[name] for name in self._order}
            with torch.inference_mode(False):  # for the next checkpoint
                self.widths = torch.tensor(list(self._drawn.values()))
        return self._drawn

    def _saved_widths(self, widths: Tensor) -> dict[str, int]:
        saved = zip(self._order, widths.tolist(), strict=True)
        return {name: width for name, width in saved if width}

    def is_drawn(self, unit: str) -> bool:
        """Whether the matrix that a unit uses has been drawn."""
        if self.matrix is None or self.widths is None:
            return self.matrix is not None
        return bool(self.widths[self._order.index(self.source[unit])])

    def after_loading(self) -> None:
        """Take note of which matrices the checkpoint has; missing ones are drawn when used."""
        self._drawn = None
        fits = self.widths is not None and len(self.widths) == len(self._order)
        if self.widths is not None and fits and not self.widths.is_meta:
            self._drawn = self._saved_widths(self.widths)

    def _by_name(self, drawn: Mapping[str, int], dtype: torch.dtype) -> dict[str, Tensor]:
        if self.matrix is None:
            return {}
        parts = self.matrix.detach().to(dtype).split_with_sizes(list(drawn.values()))
        return dict(zip(drawn, parts, strict=True))

    def _draw_missing(
        self, widths: Mapping[str, int], drawn: Mapping[str, int], errors: int
    ) -> dict[str, int]:
        dtype = torch.float32 if self.matrix is None else self.matrix.dtype
        parts = self._by_name(drawn, dtype)
        missing = {name: (widths[name], errors) for name in widths if name not in parts}
        check_matrix_sizes(missing, _REMEDY, copies=2)
        for name in missing:
            matrix = self._draw(name, widths[name], errors)
            parts[name] = matrix if self.matrix is None else matrix.to(self.matrix)
        self._drawn = {name: len(parts[name]) for name in self._order if name in parts}
        stacked = torch.cat([parts[name] for name in self._drawn]).detach()
        self.matrix = nn.Parameter(stacked) if self.learned else stacked
        self.widths = torch.tensor([self._drawn.get(name, 0) for name in self._order])
        return self._drawn

    def _draw(self, name: str, width: int, errors: int) -> Tensor:
        fan_in, scale = errors, self.scale
        if self.projection is not None:
            # Entries of Q P have the variance of a full matrix: a sum over r products.
            fan_in = self.projection.shape[1]
            scale *= (fan_in / errors) ** 0.5
            if self.distribution == "orthogonal":  # whose variance is 1 / the longer side
                scale *= (max(width, errors) / max(width, fan_in)) ** 0.5
        return draw_feedback(
            (width, errors),
            fan_in=fan_in,
            fan_out=width,
            distribution=self.distribution,
            scale=scale,
            seed=derive_seed(self.seed, name),
        )


def _sources(units: Sequence[str], shared: bool | Mapping[str, str]) -> dict[str, str]:
    """For each unit the unit whose matrix it uses."""
    if isinstance(shared, bool):
        return {name: units[0] if shared else name for name in units}
    unknown = [name for pair in shared.items() for name in pair if name not in units]
    if unknown:
        raise ValueError(
            f"`shared` names {unknown[0]!r}, which is not a unit. Choose from: "
            f"{choice(units, unknown[0])}."
        )
    return {name: shared.get(name, name) for name in units}

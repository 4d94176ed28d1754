"""Direct feedback: matrices from the output error to every unit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import linear

from lit_credit.feedback.credits import (
    Credits,
    Factors,
    channel_dim,
    check_rows,
    in_shape,
    normalized_credits,
)
from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.feedback.sizes import check_matrix_sizes
from lit_credit.utils.ranges import check_range, check_sizes
from lit_credit.utils.short_text import choice

__all__ = ["DirectFeedback", "ErrorShape"]

ErrorShape = Literal["auto", "flattened", "per_position"]

_REMEDY = (
    "Set `error` to 'per_position' (one row a channel, the same at every position); draw matrices "
    "of low `rank`; for many classes set DFA's `error_at` to 'readout'; or choose units with "
    "smaller outputs."
)


class DirectFeedback(LazyBuffers):
    """Fixed random matrices from the error straight to every unit: ``a_l = e B_l^T``.

    Each matrix is drawn when its unit first runs, because its shape is not known before; the seed
    and the name of its unit determine its values. ``matrix`` stacks the rows of all matrices in the
    order of the units. ``widths`` counts the rows of each matrix, 0 if it is not drawn yet.

    Args:
        units: names of the units, in forward order.
        distribution: distribution of the entries; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on every matrix.
        seed: seed of the matrices' own generator.
        shared: True gives all units the same matrix (they must have equal sizes); a dict maps a
            unit to the unit whose matrix it uses: ``{"embed": "blocks.0"}``.
        error: ``flattened``: all features of a unit's output (F) see all entries of a sample's
            error (E), B_l is (F, E). ``per_position``: B_l is (d, C) on the last dimensions, the
            same at every position; an error without positions reaches all positions equally.
            ``auto``: per position if the output has the error's positions (N, T, C), else
            flattened, for example for feature maps (N, C, H, W). Under SGD use the distribution
            ``xavier`` for feature maps: with N(0, 1 / E) each of C H W entries gets a credit as
            large as a single unit's, and a filter the sum of H W of them.
        normalize: scale each sample's credit to unit root mean square; see
            :func:`rms_normalized`.
        rank: None draws full matrices. A number r draws B_l = Q_l P of rank r, Q_l (F, r) for each
            unit and one P (r, E) for all: errors are projected once, and the matrices shrink by
            r / E. Entries of B have the variance that they have without.
        learned: the matrices Q_l, or B_l, are a parameter, whose gradient is left to the caller.

    Reference:
        Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, 2016,
        arXiv 1609.01596, equation 7. Low rank: Hanut, Kadmon, Training Large Neural Networks With
        Low-Dimensional Error Feedback, 2025, arXiv 2502.20580; their P learns, ours is fixed.
    """

    matrix: Tensor | None
    widths: Tensor | None
    projection: Tensor | None

    def __init__(
        self,
        units: Sequence[str],
        distribution: Distribution = "normal",
        scale: float = 1.0,
        seed: int = 0,
        shared: bool | Mapping[str, str] = False,
        error: ErrorShape = "auto",
        normalize: bool = False,
        rank: int | None = None,
        learned: bool = False,
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
        self.error: ErrorShape = error
        self.normalize = normalize
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

    def forward(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float = 1.0
    ) -> Credits:
        """Send the error to every unit.

        Args:
            error: e = d loss / d output, (N, ..., C), of a loss that averages over samples.
            shapes: shape of the output (N, ...) of each unit that ran.
            scale: factor on the loss.

        Returns:
            Functions that compute the credit of a unit.

        Raises:
            ValueError: if the sizes differ from those that the matrices were drawn for, or if the
                rows of a unit are not those of the error.
        """
        rows, positions = self._rows(error, shapes)
        rows = self._projected(rows)
        found = {
            name: Factors(rows, matrix, shared=self._serves[name] > 1)
            for name, matrix in self._matrices(self._widths_of(shapes, positions), rows).items()
        }

        def factors(name: str) -> Factors:
            return found[self.source[name]]

        def dense(name: str) -> Tensor:
            return in_shape(factors(name).product(), shapes[name])

        credits = Credits(dense, factors)
        return normalized_credits(credits, shapes, scale) if self.normalize else credits

    def gradient(self, error: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """The sum over rows of ``f_l e``, in the shape of ``matrix``, f_l the units' outputs.

        Args:
            error: as in :meth:`forward`.
            outputs: output (N, ...) of each unit that ran.
        """
        shapes = {name: output.shape for name, output in outputs.items()}
        rows, positions = self._rows(error, shapes)
        rows = self._projected(rows)
        flat_rows = rows.reshape(-1, rows.shape[-1])
        parts: dict[str, Tensor] = {}
        for name, output in outputs.items():
            flat = _as_rows(output, rows) if positions else output.flatten(1)
            product = flat.to(rows.dtype).reshape(len(flat_rows), -1).T @ flat_rows
            source = self.source[name]
            parts[source] = parts[source] + product if source in parts else product
        widths = {name: len(part) for name, part in parts.items()}
        drawn = self._known_widths(widths)
        zeros = {name: rows.new_zeros(width, rows.shape[-1]) for name, width in drawn.items()}
        return torch.cat([parts.get(name, zeros[name]) for name in drawn])

    def after_loading(self) -> None:
        """Forget which matrices were drawn; missing ones are drawn at their next use."""
        self._drawn = None

    def is_drawn(self, unit: str) -> bool:
        """Whether the matrix that a unit uses has been drawn."""
        if self.matrix is None or self.widths is None:
            return self.matrix is not None
        return bool(self.widths[self._order.index(self.source[unit])])

    def _widths_of(self, shapes: Mapping[str, Size], positions: bool) -> dict[str, int]:
        """Rows of each matrix in use, by the unit that the matrix is named after."""
        widths: dict[str, int] = {}
        for name, shape in shapes.items():
            width = shape[channel_dim(shape)] if positions else shape[1:].numel()
            if widths.setdefault(self.source[name], width) != width:
                raise ValueError(
                    f"`shared`: unit {name!r} has {width} features, and {self.source[name]!r}, "
                    f"whose matrix it uses, has {widths[self.source[name]]}. Share between units "
                    "of one size."
                )
        return widths

    def _rows(self, error: Tensor, shapes: Mapping[str, Size]) -> tuple[Tensor, bool]:
        """The rows of the error, and whether they are positions of sequences."""
        for name, shape in shapes.items():
            check_rows(name, shape, error.shape, "error")
        per_position = {self._per_position(error, shape) for shape in shapes.values()}
        if len(per_position) > 1:
            raise ValueError(
                "`error`: some units have the positions of the error and some have not. Set it to "
                "'flattened' or 'per_position'."
            )
        positions = per_position == {True}
        if positions and error.dim() > 3:
            raise ValueError(
                f"`error` is 'per_position', but the error is a feature map {tuple(error.shape)}. "
                "Set it to 'flattened'."
            )
        return (error if positions else error.flatten(1)), positions

    def _projected(self, rows: Tensor) -> Tensor:
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
        self.projection = self.projection.to(rows.device)
        return linear(rows, self.projection.to(rows.dtype))

    def _per_position(self, error: Tensor, shape: Size) -> bool:
        if self.error != "auto":
            return self.error == "per_position"
        # An error of four dimensions is a feature map (N, C, H, W).
        return error.dim() == 3 and shape[:-1] == error.shape[:-1]

    def _matrices(self, widths: Mapping[str, int], rows: Tensor) -> dict[str, Tensor]:
        """The matrices of the units that ran; matrices that were never used are drawn now."""
        if not widths:
            return {}
        drawn = self._known_widths(widths)
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

    def _by_name(self, drawn: Mapping[str, int], dtype: torch.dtype) -> dict[str, Tensor]:
        if self.matrix is None:
            return {}
        parts = self.matrix.detach().to(dtype).split_with_sizes(list(drawn.values()))
        return dict(zip(drawn, parts, strict=True))

    def _known_widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Rows of the matrices that are drawn, in the order of the units."""
        if self.matrix is None:
            return {}
        if self._drawn is None and self.widths is not None:
            saved = dict(zip(self._order, self.widths.tolist(), strict=True))
            self._drawn = {name: width for name, width in saved.items() if width}
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


def _as_rows(output: Tensor, rows: Tensor) -> Tensor:
    """A unit's output with one row for each row of the error, its features last."""
    if channel_dim(output.shape) == 1:
        output = output.movedim(1, -1)
    extra = output.dim() - rows.dim()
    return output.sum(tuple(range(1, 1 + extra))) if extra > 0 else output


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

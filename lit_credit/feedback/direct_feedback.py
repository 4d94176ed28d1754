"""Direct feedback: fixed random matrices from the output error to every unit."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_credit.feedback.credit import rms_normalized
from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.lazy_buffers import LazyBuffers

__all__ = ["DirectFeedback", "ErrorShape"]

ErrorShape = Literal["auto", "flattened", "per_position"]


class DirectFeedback(LazyBuffers):
    """Fixed random matrices from the error straight to every unit: ``a_l = e B_l^T``.

    The matrices are drawn when first used, because only then the units' shapes are known; the
    seed alone decides their values. They are one buffer, so that all credits come from one product.

    Args:
        units: names of the units, in forward order.
        distribution: of the entries; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on every matrix.
        seed: of the matrices' own generator.
        shared: True gives all units the same matrix (they must have equal sizes); a dict names,
            for some units, the unit whose matrix they use: ``{"embed": "blocks.0"}``.
        error: ``flattened``: all features of a unit's output (F) see all entries of a sample's
            error (E), B_l is (F, E). ``per_position``: B_l is (d, C) on the last dimensions, and
            the same at every position; an error without positions reaches all of them alike.
            ``auto``: per position where the output has the error's positions (N, T, C), else
            flattened.
        normalize: scale each sample's credit to unit root mean square; see
            :func:`rms_normalized`.

    Reference:
        Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, 2016,
        arXiv 1609.01596, equation 7.
    """

    matrix: Tensor | None

    def __init__(
        self,
        units: Sequence[str],
        distribution: Distribution = "normal",
        scale: float = 1.0,
        seed: int = 0,
        shared: bool | Mapping[str, str] = False,
        error: ErrorShape = "auto",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if distribution == "weight":
            raise ValueError(
                "`distribution` is 'weight', but direct feedback has no weight of its shape. "
                "Choose normal, uniform, kaiming, xavier, orthogonal or constant."
            )
        self.source = _sources(units, shared)
        self.distribution: Distribution = distribution
        self.scale = scale
        self.seed = seed
        self.error: ErrorShape = error
        self.normalize = normalize
        self.register_buffer("matrix", None)

    def forward(self, error: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Send the error to every unit.

        Args:
            error: e = d loss / d output, (N, ..., C), of a loss that averages over samples.
            outputs: each unit's output; only its shape is used.

        Returns:
            Each unit's credit, of the shape of its output.

        Raises:
            ValueError: if the sizes differ from those that the matrices were drawn for.
        """
        per_position = {name: self._per_position(error, f) for name, f in outputs.items()}
        if len(set(per_position.values())) > 1:
            raise ValueError(
                "`error`: some units have the positions of the error and some have not. Set it to "
                "'flattened' or 'per_position'."
            )
        positions = all(per_position.values())
        rows = error if positions else error.flatten(1)
        widths = {
            self.source[name]: f.shape[_channel_dim(f)] if positions else f[0].numel()
            for name, f in outputs.items()
        }
        credits = rows @ self._matrix_for(widths, rows).to(rows.dtype).T
        samples = rows[..., 0].numel()
        found = {}
        parts = torch.split(credits, list(widths.values()), dim=-1)
        for source, credit in zip(widths, parts, strict=True):
            found[source] = rms_normalized(credit, samples) if self.normalize else credit
        return {name: _shaped(found[self.source[name]], f) for name, f in outputs.items()}

    def _per_position(self, error: Tensor, output: Tensor) -> bool:
        if self.error != "auto":
            return self.error == "per_position"
        return error.dim() > 2 and output.shape[:-1] == error.shape[:-1]

    def _matrix_for(self, widths: Mapping[str, int], rows: Tensor) -> Tensor:
        size = (sum(widths.values()), rows.shape[-1])
        if self.matrix is None:
            # Under inference_mode this would be a tensor that training may not use.
            with torch.inference_mode(False):
                drawn = [self._draw(name, width, size[1]) for name, width in widths.items()]
                self.matrix = torch.cat(drawn)
        if self.matrix.shape != size:
            raise ValueError(
                f"the feedback matrices are {tuple(self.matrix.shape)}, but the units' outputs and "
                f"the error need {size}. They were drawn for the first batch or loaded from a "
                "checkpoint: keep the shapes of net and data, or set `error` to 'per_position' "
                "where the number of positions varies."
            )
        self.matrix = self.matrix.to(rows.device)
        return self.matrix

    def _draw(self, name: str, width: int, errors: int) -> Tensor:
        return draw_feedback(
            (width, errors),
            fan_in=errors,
            fan_out=width,
            distribution=self.distribution,
            scale=self.scale,
            seed=derive_seed(self.seed, name),
        )


def _sources(units: Sequence[str], shared: bool | Mapping[str, str]) -> dict[str, str]:
    """For each unit the unit whose matrix it uses."""
    if isinstance(shared, bool):
        return {name: units[0] if shared else name for name in units}
    unknown = [name for pair in shared.items() for name in pair if name not in units]
    if unknown:
        raise ValueError(
            f"`shared` names {unknown[0]!r}, which is no unit. Choose from: {', '.join(units)}."
        )
    return {name: shared.get(name, name) for name in units}


def _channel_dim(output: Tensor) -> int:
    """Features come last in (N, d) and (N, T, d), and second in feature maps (N, d, H, W)."""
    return 1 if output.dim() > 3 else -1


def _shaped(credit: Tensor, output: Tensor) -> Tensor:
    """A credit (N, F) or (N, ..., d) in the shape of the output."""
    if credit[0].numel() == output[0].numel():
        return credit.reshape(output.shape)
    channel = _channel_dim(output)
    if channel == 1:
        return credit[(...,) + (None,) * (output.dim() - 2)].expand(output.shape)
    return credit[:, None].expand(output.shape)

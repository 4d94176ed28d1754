"""Goodness of a unit's output, unit rms, and mean activities."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.utils.private_names import own_buffers

__all__ = ["MeanActivities", "goodness", "unit_rms", "widened"]

_TINY = 1e-8
_FIRST_MEAN = 0.5


def goodness(output: Tensor) -> Tensor:
    """The sum of squares of all entries of each sample: (N, ...) to (N,).

    Example:
        >>> goodness(torch.tensor([[3.0, 4.0]]))
        tensor([25.])
    """
    return widened(output).square().flatten(1).sum(1)


def unit_rms(output: Tensor) -> Tensor:
    """Each sample divided by the root mean square of all its entries.

    1e-8 is added to the mean square, so that a sample of zeros stays zero.

    Example:
        >>> unit_rms(torch.tensor([[3.0, 3.0], [0.0, 0.0]]))
        tensor([[1., 1.],
                [0., 0.]])
    """
    rows = widened(output).flatten(1)
    scaled = rows * torch.rsqrt(rows.square().mean(1, keepdim=True) + _TINY)
    return scaled.view(output.shape).to(output.dtype)


def widened(output: Tensor) -> Tensor:
    """The tensor in float32 if it has fewer bits, in which sums of squares lose too many."""
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


class MeanActivities(LazyBuffers):
    """The running mean of the activity of each feature of each unit.

    Buffers ``mean_0`` (F,), or (C, H, W) for feature maps, of unit 0; they start at 0.5.

    Args:
        units: names of the units.
        momentum: share of the former mean in a new one.
    """

    def __init__(self, units: Sequence[str], momentum: float) -> None:
        super().__init__()
        self.units = list(units)
        self.momentum = momentum

    def make(self, outputs: Mapping[str, Tensor]) -> None:
        """Make the means that are not there yet, from outputs (N, ...) of the units."""
        for name, output in outputs.items():
            if self._name(name) not in own_buffers(self):
                first = torch.full_like(widened(output[0]), _FIRST_MEAN)
                self.register_buffer(self._name(name), first)

    def next_mean(self, name: str, activity: Tensor) -> Tensor:
        """The running mean that follows a batch's mean activity.

        Raises:
            ValueError: if the mean does not exist yet, or has another shape.
        """
        if self[name].shape != activity.shape:
            raise ValueError(
                f"unit {name!r} hands on {tuple(activity.shape)} a sample, but its mean activities "
                f"are {tuple(self[name].shape)}: forward-forward needs outputs of one size. Bring "
                "the inputs to one size, or set `peer_weight` to 0."
            )
        return self.momentum * self[name] + (1 - self.momentum) * activity

    def set(self, name: str, mean: Tensor) -> None:
        """Replace a running mean."""
        self[name].copy_(mean.detach())

    def over_processes(
        self, means: Mapping[str, Tensor], sum_up: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The mean of a batch's means over the processes in which the unit ran.

        Args:
            means: mean activity of each unit that ran in this process.
            sum_up: sums a tensor over all processes.
        """
        parts = []
        for name in self.units:
            mean = means.get(name)
            value = torch.zeros_like(self[name]) if mean is None else mean.detach()
            parts.append(torch.cat([value.flatten(), value.new_tensor([mean is not None])]))
        summed = torch.split(sum_up(torch.cat(parts)), [len(part) for part in parts])
        return {
            name: (part[:-1] / part[-1]).view(means[name].shape)
            for name, part in zip(self.units, summed, strict=True)
            if name in means
        }

    def __getitem__(self, name: str) -> Tensor:
        found = own_buffers(self).get(self._name(name))
        if found is None:
            raise ValueError(
                f"unit {name!r} has no mean activity yet: it is made at the start of `fit`. Train "
                "first, load a checkpoint, or call `prepare(batch)` of the rule."
            )
        return found

    def _name(self, unit: str) -> str:
        return f"mean_{self.units.index(unit)}"

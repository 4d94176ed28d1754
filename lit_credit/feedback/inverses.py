"""Approximate inverses of units: from the output of one unit to that of the unit before."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Size, Tensor, nn
from torch.nn import functional as F

from lit_credit.feedback.credits import channel_dim
from lit_credit.feedback.draw import derive_seed
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.feedback.sizes import check_matrix_sizes
from lit_credit.utils.private_names import own_parameters
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["InverseActivation", "Inverses"]

InverseActivation = Literal["identity", "tanh", "relu", "sigmoid"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda t: t,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}
_POOLS: dict[int, Callable[..., Tensor]] = {4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}
_REMEDY = "Name units with smaller outputs, or fewer of them."


class Inverses(LazyBuffers):
    """A mapping ``G_l(t) = activation(t Q_l^T + c_l)`` for each unit l but the last.

    G_l maps the output of the unit that follows to the shape of the output of unit l. Sequences
    (N, T, d) are mapped position by position. Feature maps (N, C, H, W) are mapped from channels to
    channels at every position, and then resampled to the positions of unit l: averaged, or
    repeated. Of unit 0 the weights are ``weight_0`` (F_0, F_1) and ``bias_0`` (F_0,), F the
    features or channels. Entries of Q start at N(0, 1 / F_{l+1}), c at 0.

    Args:
        units: names of the units, in forward order.
        activation: activation of the mappings.
        seed: seed of the weights; each unit has its own stream.
        learned: the weights are parameters; if not, nothing changes them.
    """

    def __init__(
        self,
        units: Sequence[str],
        activation: InverseActivation = "identity",
        seed: int = 0,
        learned: bool = True,
    ) -> None:
        super().__init__()
        check_choice(list(_ACTIVATIONS), activation=activation)
        check_range(seed=seed)
        self.activation: InverseActivation = activation
        self.seed = seed
        self._index = {name: index for index, name in enumerate(units)}
        for index in range(len(units) - 1):
            for name in (f"weight_{index}", f"bias_{index}"):
                if learned:
                    self.register_parameter(name, None)
                else:
                    self.register_buffer(name, None)

    def make(self, outputs: Mapping[str, Tensor]) -> None:
        """Draw the mappings that are not there yet.

        Args:
            outputs: output of each unit on a few samples, in forward order.

        Raises:
            ValueError: if a mapping would not fit into memory, or if it would lead to a sequence
                from outputs without its positions, or from feature maps to vectors.
        """
        sizes = {
            name: (_features(output), _features(after))
            for (name, output), (_, after) in pairwise(outputs.items())
        }
        for (name, output), (following, after) in pairwise(outputs.items()):
            _check_pair(name, output.shape, following, after.shape)
        check_matrix_sizes(sizes, _REMEDY)
        for name, size in sizes.items():
            index = self._index[name]
            if getattr(self, f"weight_{index}") is not None:
                continue
            like = outputs[name]
            generator = torch.Generator().manual_seed(derive_seed(self.seed, name))
            drawn = torch.randn(size, generator=generator, dtype=torch.float32) / size[1] ** 0.5
            for kind, value in (("weight", drawn), ("bias", drawn.new_zeros(size[0]))):
                value = value.to(like.device, like.dtype)
                learns = f"{kind}_{index}" in own_parameters(self)
                setattr(self, f"{kind}_{index}", nn.Parameter(value) if learns else value)

    def forward(self, name: str, after: Tensor, like: Tensor) -> Tensor:
        """``G_l`` of what follows unit l.

        Args:
            name: name of unit l.
            after: output of the unit that follows, or a target for it.
            like: a tensor of the shape of the output of unit l.

        Raises:
            ValueError: if the mapping is not drawn yet, or the shapes do not suit each other.
        """
        _check_pair(name, like.shape, "that follows", after.shape)
        index = self._index[name]
        weight: Tensor | None = getattr(self, f"weight_{index}")
        if weight is None:
            raise ValueError(
                f"the mapping to unit {name!r} is not drawn yet. Call `prepare(batch)` of the rule "
                "before training without a Trainer."
            )
        bias = getattr(self, f"bias_{index}")
        dims = max(like.dim(), after.dim())
        if dims < 4:
            mapped = F.linear(after, weight, bias)
        else:
            maps = after.reshape(*after.shape, *(1,) * (dims - after.dim()))
            mapped = F.linear(maps.movedim(1, -1), weight, bias).movedim(-1, 1)
            mapped = _POOLS[dims](mapped, (*like.shape[2:], *(1,) * (dims - like.dim())))
        return _ACTIVATIONS[self.activation](mapped).reshape(like.shape)


def _features(output: Tensor) -> int:
    """Features, or channels."""
    return output.shape[channel_dim(output.shape)]


def _check_pair(name: str, shape: Size, following: str, after: Size) -> None:
    """Refuse a pair of outputs between which no mapping is defined."""
    dims = len(shape), len(after)
    sequences = dims == (3, 3) and shape[1] == after[1]
    maps = dims[0] > 3 and dims[1] in (2, dims[0])
    if not (dims == (2, 2) or sequences or maps):
        raise ValueError(
            f"unit {name!r} hands on {tuple(shape)}, and the unit {following!r} {tuple(after)}: a "
            "target comes back from vectors to vectors, from a sequence to one of the same "
            "positions (N, T, d), or to feature maps (N, C, H, W) from maps or vectors. Choose "
            "other `units`, or train the net by BlockFA or DFA."
        )

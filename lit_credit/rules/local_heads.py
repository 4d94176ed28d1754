"""Auxiliary heads at the outputs of units, and the similarity loss."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_credit.feedback.draw import derive_seed
from lit_credit.feedback.sizes import check_matrix_sizes
from lit_credit.utils.private_names import NoticesLoading, own_parameters

__all__ = ["LocalHeads", "pooled", "similarity"]

MOST_FEATURES = 2048
"""Inputs of a linear head on a feature map, which is pooled to this size."""
_POOLS: dict[int, Callable[..., Tensor]] = {4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}
_REMEDY = "Name fewer `units`, or units with smaller outputs."


def pooled(output: Tensor, positions: bool) -> Tensor:
    """A unit's output as the input of a linear head.

    Args:
        output: (N, F), a sequence (N, T, d) or a feature map (N, C, H, W) or (N, C, D, H, W). Of
            three dimensions the last has the features, so the unit of a Conv1d must transpose.
        positions: the head answers at every position of a sequence.

    Returns:
        (N, F); (N, T, d) with ``positions``, else the mean over positions; a map is averaged over
        patches so that at most 2048 features are left, one for each channel at least.

    Example:
        >>> pooled(torch.zeros(2, 128, 8, 8), positions=False).shape
        torch.Size([2, 2048])
    """
    if output.dim() == 3:
        return output if positions else output.mean(1)
    if output.dim() > 3:
        positions_left = max(MOST_FEATURES // output.shape[1], 1)
        side = max(int(positions_left ** (1 / (output.dim() - 2)) + 1e-6), 1)
        size = [min(side, length) for length in output.shape[2:]]
        output = _POOLS[output.dim()](output, size)
    return output.flatten(1)


def similarity(rows: Tensor) -> Tensor:
    """Cosines between all pairs of rows, each row centred: (N, F) to (N, N).

    A feature map (N, C, H, W) is described by the standard deviation of each channel over its
    positions first.

    Example:
        >>> similarity(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([[ 1.0000, -1.0000],
                [-1.0000,  1.0000]])

    Reference:
        Nokland, Eidnes, Training Neural Networks with Local Error Signals, 2019, arXiv 1901.06656,
        section 2.
    """
    if rows.dim() > 2:
        flat = rows.flatten(2)
        rows = flat.std(2) if flat.shape[2] > 1 else flat.flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    unit = centred / (torch.linalg.vector_norm(centred, dim=1, keepdim=True) + 1e-8)
    cosines: Tensor = unit @ unit.T
    return cosines


class LocalHeads(NoticesLoading):
    """The heads of all units: a linear prediction, and the layer in front of the similarity.

    A head's shape depends on the output of its unit, so :meth:`make` draws it from an output; a
    checkpoint brings its own shapes. Parameters: ``pred_weight_0`` (C, F) and ``pred_bias_0`` (C,),
    which start at zero, and ``sim_weight_0``, (F, F) or a kernel (C, C, 3, 3) for maps, of unit 0.

    Args:
        units: names of the units, in forward order.
        seed: seed of the layers in front of the similarity; each unit has its own stream.
    """

    def __init__(self, units: Sequence[str], seed: int = 0) -> None:
        super().__init__()
        self.units = list(units)
        self.seed = seed

    def before_loading(self, saved: Mapping[str, Tensor]) -> None:
        """Make room for the parameters of a checkpoint."""
        own = own_parameters(self)
        for name, value in saved.items():
            found = own.get(name)
            if found is None or found.shape != value.shape:
                device = None if found is None else found.device
                self.register_parameter(name, nn.Parameter(torch.empty_like(value, device=device)))

    def make(
        self,
        outputs: Mapping[str, Tensor],
        width: int | None,
        positions: bool,
        similar: bool,
        bias: bool = True,
    ) -> None:
        """Draw the heads that are not there yet.

        Args:
            outputs: output of each unit on a few samples.
            width: outputs C of a prediction; None makes none.
            positions: whether heads answer at every position of a sequence.
            similar: whether to make the layers in front of the similarity.
            bias: give predictions a bias.
        """
        if width is not None:
            sizes = {n: (width, pooled(v, positions).shape[-1]) for n, v in outputs.items()}
            check_matrix_sizes(sizes, _REMEDY)
        for name, output in outputs.items():
            index = self.units.index(name)
            if width is not None and f"pred_weight_{index}" not in own_parameters(self):
                features = pooled(output, positions).shape[-1]
                weight, zeros = output.new_zeros(width, features), output.new_zeros(width)
                self.register_parameter(f"pred_weight_{index}", nn.Parameter(weight))
                if bias:
                    self.register_parameter(f"pred_bias_{index}", nn.Parameter(zeros))
            if similar and f"sim_weight_{index}" not in own_parameters(self):
                kernel = (3, 3) if output.dim() > 3 else ()
                shape = (output.shape[1], output.shape[1], *kernel)
                generator = torch.Generator().manual_seed(derive_seed(self.seed, name))
                drawn = torch.empty(shape)
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
                self.register_parameter(f"sim_weight_{index}", nn.Parameter(drawn.to(output)))

    def predict(self, name: str, output: Tensor, positions: bool) -> Tensor:
        """The prediction (N, C), or (N, T, C), from a unit's output.

        Raises:
            ValueError: if the heads are not made yet.
        """
        weight = self.weight(name)
        bias = own_parameters(self).get(f"pred_bias_{self.units.index(name)}")
        return F.linear(pooled(output, positions), weight, bias)

    def weight(self, name: str) -> Tensor:
        """The weight (C, F) of the prediction from a unit's output.

        Raises:
            ValueError: if the heads are not made yet.
        """
        found = own_parameters(self).get(f"pred_weight_{self.units.index(name)}")
        if found is None:
            raise ValueError(
                f"unit {name!r} has no head yet: the heads are made at the start of `fit`. Train "
                "first, load a checkpoint, or call `prepare(batch)` of the rule."
            )
        return found

    def similarity(self, name: str, output: Tensor) -> Tensor:
        """The similarities (N, N) of a unit's outputs (N, F) or (N, C, H, W)."""
        weight: Tensor = getattr(self, f"sim_weight_{self.units.index(name)}")
        if output.dim() > 3:
            return similarity(F.conv2d(output, weight, padding=1))
        return similarity(F.linear(output, weight))

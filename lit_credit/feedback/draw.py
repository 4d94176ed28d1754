"""Drawing random feedback matrices, each from its own random stream."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lit_credit.utils.ranges import check_range

__all__ = ["Distribution", "derive_seed", "draw_feedback"]

Distribution = Literal[
    "normal", "uniform", "kaiming", "xavier", "orthogonal", "constant", "weight", "weight_std"
]


def derive_seed(seed: int, name: str | int) -> int:
    """A seed for the matrix ``name``, the same in every process and on every machine.

    Args:
        seed: the seed that all matrices share.
        name: distinguishes this matrix from the others: its name or its index.

    Returns:
        A non-negative integer below 2**63.

    Example:
        >>> derive_seed(0, "readout.weight") == derive_seed(0, "readout.weight")
        True
        >>> derive_seed(0, "readout.weight") == derive_seed(1, "readout.weight")
        False
    """
    digest = blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw_feedback(
    shape: Sequence[int],
    *,
    fan_in: int,
    fan_out: int,
    distribution: Distribution = "normal",
    scale: float = 1.0,
    seed: int = 0,
    weight: Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Draw one fixed feedback matrix B.

    =============  ===============================================
    distribution   entries, before ``scale``
    =============  ===============================================
    ``normal``     N(0, 1 / fan_in)
    ``uniform``    U(-a, a), a = sqrt(3 / fan_in): the same variance
    ``kaiming``    N(0, 2 / fan_in)
    ``xavier``     N(0, 2 / (fan_in + fan_out))
    ``orthogonal`` orthonormal rows or columns, whichever are fewer
    ``constant``   1 / sqrt(fan_in)
    ``weight``     a copy of ``weight``
    ``weight_std`` the standard deviation of ``weight``, in every entry
    =============  ===============================================

    B is drawn on the CPU in float32 and then moved, so that neither the device nor the dtype
    changes the values. It has its own generator, so that the global random state does not change.

    Args:
        shape: the shape of B; for ``orthogonal`` the first dimension counts the rows, and all
            others together the columns.
        fan_in: number of entries of the error that one entry of the credit sums.
        fan_out: number of entries of the credit that one entry of the error reaches.
        distribution: see the table.
        scale: factor on every entry.
        seed: seed of the matrix's own generator; see :func:`derive_seed`.
        weight: the weight that ``weight`` copies and ``weight_std`` measures.
        device: device of B.
        dtype: dtype of B.

    Returns:
        B, without a gradient.

    Raises:
        ValueError: if an argument is invalid.

    Example:
        >>> draw_feedback((2, 2), fan_in=4, fan_out=2, distribution="constant", scale=3.0)
        tensor([[1.5000, 1.5000],
                [1.5000, 1.5000]])
    """
    _check(shape, fan_in, fan_out, distribution, scale, weight)
    if weight is not None and distribution == "weight":
        return weight.detach().to(device=device, dtype=dtype, copy=True).mul_(scale)
    if weight is not None and distribution == "weight_std":
        std = float(weight.detach().double().std(correction=0))
        return torch.full(tuple(shape), std * scale, device=device, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.empty(*shape, dtype=torch.float32, device="cpu")
    if distribution == "orthogonal":
        nn.init.orthogonal_(matrix, generator=generator)
    elif distribution == "constant":
        matrix.fill_(1 / math.sqrt(fan_in))
    elif distribution == "uniform":
        bound = math.sqrt(3 / fan_in)
        matrix.uniform_(-bound, bound, generator=generator)
    else:
        variances = {"normal": fan_in, "kaiming": fan_in / 2, "xavier": (fan_in + fan_out) / 2}
        matrix.normal_(generator=generator).div_(math.sqrt(variances[distribution]))
    return matrix.mul_(scale).to(device=device, dtype=dtype)


def _check(
    shape: Sequence[int],
    fan_in: int,
    fan_out: int,
    distribution: str,
    scale: float,
    weight: Tensor | None,
) -> None:
    if distribution not in get_args(Distribution):
        choice = ", ".join(get_args(Distribution))
        raise ValueError(f"`distribution` is {distribution!r}. Choose from: {choice}.")
    check_range(scale=scale)
    check_range(1, fan_in=fan_in, fan_out=fan_out)
    if distribution == "orthogonal" and len(shape) < 2:
        raise ValueError(
            f"`shape` is {tuple(shape)}, but 'orthogonal' needs two dimensions at least. "
            "Choose another `distribution`."
        )
    needs_weight = distribution in ("weight", "weight_std")
    if needs_weight and (weight is None or weight.shape != tuple(shape)):
        found = "None" if weight is None else f"of shape {tuple(weight.shape)}"
        use = "copies it" if distribution == "weight" else "takes its standard deviation"
        raise ValueError(
            f"`weight` is {found}, but `distribution={distribution!r}` {use}: "
            f"pass a weight of shape {tuple(shape)}, or choose another `distribution`."
        )
    if distribution == "weight_std" and weight is not None and not weight.detach().std() > 0:
        raise ValueError(
            "`weight` has a standard deviation of 0 or NaN, so `distribution='weight_std'` would "
            "send no error back. Add the feedback after the weights are drawn, or choose another "
            "`distribution`."
        )

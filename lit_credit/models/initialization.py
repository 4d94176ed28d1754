"""Initial weights by name."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["INITS", "Init", "check_init", "initialize_"]

Init = Literal[
    "default",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "orthogonal",
    "normal",
]

INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}


def check_init(init: Init, init_std: float | None) -> None:
    """Check that an initialisation is known, and that ``normal`` alone has a standard deviation.

    Raises:
        ValueError: naming the argument.
    """
    check_choice(["default", *INITS, "normal"], init=init)
    check_range(0, init_std=init_std)
    if (init == "normal") != (init_std is not None):
        raise ValueError(
            f"`init_std` is {init_std}, and `init` is {init!r}. The standard deviation belongs to "
            "`init: normal`: give both, or neither."
        )


def initialize_(module: nn.Module, init: Init, init_std: float | None) -> None:
    r"""Draw the weights of all linear and convolutional layers anew; their biases become zero.

    ===================  ==========================================================
    init                 entries of a weight with n inputs and m outputs per entry
    ===================  ==========================================================
    ``default``          torch's: U(-1/sqrt(n), 1/sqrt(n)), biases too; nothing is drawn
    ``xavier_uniform``   U(-a, a), a = sqrt(6 / (n + m))
    ``xavier_normal``    N(0, 2 / (n + m))
    ``kaiming_uniform``  U(-a, a), a = sqrt(6 / n)
    ``kaiming_normal``   N(0, 2 / n)
    ``orthogonal``       orthonormal rows or columns, whichever are fewer
    ``normal``           N(0, init_std^2)
    ===================  ==========================================================

    Args:
        module: the net.
        init: see the table.
        init_std: standard deviation of ``normal``; None for the others.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> initialize_(layer, "orthogonal", None)
        >>> (layer.weight @ layer.weight.T).detach().round(decimals=4).abs(), layer.bias.tolist()
        (tensor([[1., 0.],
                [0., 1.]]), [0.0, 0.0])
    """
    if init == "default":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if init == "normal" and init_std is not None:
                nn.init.normal_(layer.weight, std=init_std)
            else:
                INITS[init](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

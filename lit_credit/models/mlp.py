"""A plain multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lit_credit.models.activations import Activation, make_activation
from lit_credit.models.checks import flat_features
from lit_credit.models.initialization import Init, check_init, initialize_
from lit_credit.utils.ranges import check_choice, check_range, check_sizes

__all__ = ["MLP"]

_NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Module):
    """Hidden layers ``h_{k+1} = dropout(activation(norm(W_k h_k + b_k)))`` and a linear head.

    Each hidden layer is one unit, so that credit enters behind the nonlinearity. Without ``norm``
    and ``dropout`` a hidden layer is ``activation(W_k h_k + b_k)``.

    Args:
        in_features: numbers per sample; inputs are flattened to this size.
        hidden: features of each hidden layer, for example ``[512, 512]``.
        num_classes: numbers per output.
        activation: activation of the hidden layers: the name of one of torch.nn, such as ``relu``,
            ``tanh``, ``leaky_relu`` or ``torch.nn.Softplus``, or a class (in YAML a ``class_path``
            with ``init_args``); ``identity`` makes a linear net.
        dropout: probability of dropping an entry of a hidden layer's output.
        norm: ``batch`` or ``layer`` norm between weight and activation of each hidden layer, with a
            learned scale and shift; None for no norm.
        bias: give the hidden layers and the head a bias.
        init: initial weights of the hidden layers and of the head alike: torch's ``default``;
            ``xavier_uniform`` or ``xavier_normal`` (variance 2 / (inputs + outputs)),
            ``kaiming_uniform`` or ``kaiming_normal`` (variance 2 / inputs), ``orthogonal``, or
            ``normal`` with the standard deviation ``init_std``. Biases start at zero, except with
            ``default``.
        init_std: standard deviation of the weights, for ``init: normal`` alone.

    Raises:
        ValueError: if an argument is invalid.

    Example:
        >>> import torch
        >>> net = MLP(in_features=64, hidden=[32, 32])
        >>> net(torch.zeros(2, 1, 8, 8)).shape, net.credit_units
        (torch.Size([2, 10]), ['layers.0', 'layers.1'])
        >>> net = MLP(64, [32], activation="sigmoid", norm="batch", dropout=0.1, bias=False)
        >>> [type(part).__name__ for part in net.layers[0]]
        ['Linear', 'BatchNorm1d', 'Sigmoid', 'Dropout']
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden: Sequence[int] = (512, 512, 512),
        num_classes: int = 10,
        activation: Activation = "relu",
        dropout: float = 0.0,
        norm: Literal["batch", "layer"] | None = None,
        bias: bool = True,
        init: Init = "default",
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("`hidden` is empty; give the size of at least one hidden layer.")
        check_sizes(in_features=in_features, num_classes=num_classes)
        check_sizes(hidden=hidden)
        check_range(0, below=1, dropout=dropout)
        check_init(init, init_std)
        if norm is not None:
            check_choice(list(_NORMS), norm=norm)
        self.in_features = in_features

        def layer(fan_in: int, fan_out: int) -> nn.Sequential:
            parts: list[nn.Module] = [nn.Linear(fan_in, fan_out, bias)]
            if norm is not None:
                parts.append(_NORMS[norm](fan_out))
            parts.append(make_activation(activation))
            if dropout:
                parts.append(nn.Dropout(dropout))
            return nn.Sequential(*parts)

        self.layers = nn.ModuleList(layer(*sizes) for sizes in pairwise([in_features, *hidden]))
        self.head = nn.Linear(hidden[-1], num_classes, bias)
        initialize_(self, init, init_std)

    @property
    def credit_units(self) -> list[str]:
        """The hidden layers, in forward order."""
        return [f"layers.{index}" for index in range(len(self.layers))]

    @property
    def readout(self) -> list[str]:
        """The head, which learns from the true gradient."""
        return ["head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are the hidden activations."""
        return [*self.credit_units[1:], "head"]

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch (N, ...) with ``in_features`` numbers per sample to logits (N, C).

        Raises:
            ValueError: if a sample does not have ``in_features`` numbers.
        """
        h = flat_features(x, self.in_features)
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(h)
        return logits

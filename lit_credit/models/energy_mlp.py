"""A multilayer perceptron whose states settle at a minimum of an energy."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lit_credit.models.checks import flat_features
from lit_credit.models.initialization import Init, check_init, initialize_
from lit_credit.utils.ranges import check_choice, check_parts, check_sizes

__all__ = ["EnergyMLP", "Force", "StateActivation"]

StateActivation = Literal["hard_sigmoid", "sigmoid", "tanh"]
Force = Callable[[list[Tensor]], Sequence[Tensor]]
"""Returns what is added to the current of each state, from the states."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "hard_sigmoid": partial(torch.clamp, min=0, max=1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class EnergyMLP(nn.Module):
    """Layers of states s_l that drive each other in both directions until they settle.

    The primitive function ``Phi(x, s) = sum_l s_l . (W_l s_{l-1} + b_l)`` with s_0 = x gives every
    layer its current, ``dPhi / ds_l``. In each of ``steps`` steps from zero, the layers are updated
    one after the other, from the last to the first:

    ``s_l <- sigma(dPhi / ds_l) = sigma(W_l s_{l-1} + b_l + W_{l+1}^T s_{l+1})``

    With R' the inverse of sigma, such an update minimises the energy ``E = sum_l R(s_l) - Phi``
    over s_l, so E never rises. Updating all layers at once, as Laborieux et al. do, has the same
    fixed points, but may alternate between two states for ever. The energy's gradient by a
    parameter at fixed states is that of -Phi. The output is a linear readout of the last state,
    outside of the energy; or the last state itself. One hidden layer under a linear readout has
    nothing above it in the energy, so nothing feeds back.

    Under :class:`lit_credit.rules.BP` the gradient passes back through all steps. The forward pass
    first lets the states settle without a graph, calls each layer once at these states, and relaxes
    again from zero. So hooks see what the layers receive and return at the settled states, and the
    gradient at a layer's output is that of a current added to the layer's states at all steps.

    Args:
        in_features: numbers per sample; inputs are flattened to this size.
        hidden: features of each hidden layer, for example ``[512, 512]``.
        num_classes: numbers per output.
        activation: sigma, elementwise and bounded: ``hard_sigmoid`` limits to [0, 1] with slope 1
            (that of torch.nn has slope 1/6); ``sigmoid`` or ``tanh``.
        output: ``linear``, a linear head on the last state, for any loss; or ``state``, the state
            of one more layer with ``num_classes`` features, for a squared error, such as
            ``Classification(loss=nn.MSELoss(), one_hot=True)``.
        steps: updates of every layer in a forward pass. Large weights need more; compare with
            twice as many.
        bias: give the layers and the head a bias.
        init: initial weights of the layers and of the head alike; see
            :class:`lit_credit.models.MLP`.
        init_std: standard deviation of the weights, for ``init: normal`` alone.

    Raises:
        ValueError: if an argument is invalid.

    Example:
        >>> net = EnergyMLP(in_features=64, hidden=[32, 32], steps=50)
        >>> net(torch.zeros(2, 1, 8, 8)).shape, net.credit_units, net.readout
        (torch.Size([2, 10]), ['layers.0', 'layers.1'], ['head'])
        >>> [state.shape for state in net.relax([torch.zeros(2, 64)])]
        [torch.Size([2, 32]), torch.Size([2, 32])]

    Reference:
        Scellier, Bengio, Equilibrium Propagation, 2017, arXiv 1602.05179. Laborieux et al., Scaling
        Equilibrium Propagation to Deep ConvNets, 2021, arXiv 2006.03824 (the linear readout).
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden: Sequence[int] = (512, 512),
        num_classes: int = 10,
        activation: StateActivation = "hard_sigmoid",
        output: Literal["linear", "state"] = "linear",
        steps: int = 30,
        bias: bool = True,
        init: Init = "default",
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("`hidden` is empty; give the size of at least one hidden layer.")
        check_sizes(in_features=in_features, num_classes=num_classes)
        check_sizes(hidden=hidden)
        check_choice(list(_ACTIVATIONS), activation=activation)
        check_choice(["linear", "state"], output=output)
        check_parts(steps=steps)
        check_init(init, init_std)
        self.in_features = in_features
        self.activation = activation
        self.steps = steps
        sizes = [in_features, *hidden, *([num_classes] if output == "state" else [])]
        self.layers = nn.ModuleList(nn.Linear(*pair, bias) for pair in pairwise(sizes))
        self.head = nn.Linear(hidden[-1], num_classes, bias) if output == "linear" else None
        initialize_(self, init, init_std)

    @property
    def credit_units(self) -> list[str]:
        """The layers, in forward order; their outputs are currents."""
        return [f"layers.{index}" for index in range(len(self.layers))]

    @property
    def readout(self) -> list[str]:
        """The head, if there is one."""
        return [] if self.head is None else ["head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are states."""
        return [*self.credit_units[1:], *self.readout]

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch (N, ...) with ``in_features`` numbers per sample to outputs (N, C).

        Raises:
            ValueError: if a sample does not have ``in_features`` numbers.
        """
        x = flat_features(x, self.in_features)
        # Mixed precision would keep weights that were cast without a graph for the steps below.
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            below = [x, *self.relax([x])[:-1]]
        offsets = [layer(s) for layer, s in zip(self.layers, below, strict=True)]
        for index, weight in enumerate(self._weights[1:], 1):
            offsets[index] = offsets[index] - linear(below[index], weight)
        return self.output_of(self._settle(offsets, self._zeros(x), self.steps, None))

    def relax(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor] | None = None,
        steps: int | None = None,
        force: Force | None = None,
    ) -> list[Tensor]:
        """The states after some updates.

        Args:
            inputs: the positional arguments of ``forward``: x (N, ...).
            states: the first states, (N, F_l) each; None for zeros.
            steps: the number of updates; None for that of a forward pass.
            force: returns what is added to the currents at each update, from the states.
        """
        x = flat_features(inputs[0], self.in_features)
        first, *others = self._layers
        offsets = [linear(x, first.weight, first.bias)]
        offsets += [x.new_zeros(()) if one.bias is None else one.bias for one in others]
        start = self._zeros(x) if states is None else states
        return self._settle(offsets, start, self.steps if steps is None else steps, force)

    def energy(self, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
        """``-Phi(x, s)`` of each sample, (N,): the part of the energy that has parameters."""
        below = [flat_features(inputs[0], self.in_features), *states[:-1]]
        found = [
            (state * layer(s)).sum(1)
            for state, layer, s in zip(states, self.layers, below, strict=True)
        ]
        return -torch.stack(found).sum(0)

    def output_of(self, states: Sequence[Tensor]) -> Tensor:
        """The output (N, C) at some states."""
        if self.head is None:
            return states[-1]
        output: Tensor = self.head(states[-1])
        return output

    def _settle(
        self, offsets: Sequence[Tensor], states: Sequence[Tensor], steps: int, force: Force | None
    ) -> list[Tensor]:
        """Update the states; an offset is the part of a layer's current without states."""
        sigma, weights, states = _ACTIVATIONS[self.activation], self._weights, list(states)
        for _ in range(steps):
            forces = None if force is None else force(states)
            # Downwards, so that a force on the output reaches all layers in one step.
            for index in reversed(range(len(states))):
                current = offsets[index]
                if index:
                    current = torch.addmm(current, states[index - 1], weights[index].t())
                if index + 1 < len(states):
                    current = torch.addmm(current, states[index + 1], weights[index + 1])
                if forces is not None:
                    current = current + forces[index]
                states[index] = sigma(current)
        return states

    def _zeros(self, x: Tensor) -> list[Tensor]:
        return [x.new_zeros(len(x), len(weight)) for weight in self._weights]

    @property
    def _layers(self) -> list[nn.Linear]:
        return [cast(nn.Linear, layer) for layer in self.layers]

    @property
    def _weights(self) -> list[Tensor]:
        return [layer.weight for layer in self._layers]

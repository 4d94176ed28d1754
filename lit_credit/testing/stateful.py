"""Nets that keep state in every place where nets can keep state."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_credit.protocols import NetProtocol, asked

__all__ = ["STATES", "StatefulNet"]


class _Part(nn.Module):
    """Multiplies features by a number that depends on the number of earlier runs, in any mode."""

    def forward(self, x: Tensor) -> Tensor:
        number = self.advance(x.detach().float())
        return x * (1 + 0.1 * number) if x.is_floating_point() else x

    def advance(self, x: Tensor) -> Any:
        """Change the state, and return a number that depends on it."""
        raise NotImplementedError


class _Buffer(_Part):
    """A moving average, and a mask that is registered at the first run."""

    mean: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def advance(self, x: Tensor) -> Any:
        if not hasattr(self, "mask"):
            self.register_buffer("mask", torch.zeros(()))
        self.mask += 1
        self.mean.mul_(0.9).add_(x.mean(), alpha=0.1)
        return self.mean.tanh() + self.mask.sin()


class _Attribute(_Part):
    """A counter, and a tensor that is written in place and replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.total, self.last = 0, torch.zeros(()), torch.zeros(())

    def advance(self, x: Tensor) -> Any:
        self.count += 1
        self.total.add_(x.sum())
        self.last = self.total * self.count
        return self.last.sin()


class _Containers(_Part):
    """Lists, dicts, sets, deques and tuples, with tensors in them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = [torch.zeros(())]
        self.cache: dict[str, Any] = {"tensors": [torch.zeros(())]}
        self.recent: deque[Any] = deque([torch.zeros(())], maxlen=2)
        self.shapes: set[Any] = set()
        self.pair = (torch.zeros(()), [1])

    def advance(self, x: Tensor) -> Any:
        self.seen[0].add_(1)
        self.seen.append(float(x.sum()))
        self.cache["tensors"][0] += len(self.seen)
        self.cache[str(len(self.seen))] = x.mean()
        self.recent.append(self.recent[-1] + 1)
        self.shapes.add(len(self.seen))
        self.pair[0].add_(self.recent[-1])
        self.pair[1].append(1)
        return (self.cache["tensors"][0] + self.pair[0] + len(self.shapes)).sin()


class _Written(_Part):
    """A parameter that each run writes to without a version count, and one that it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.target = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.other = nn.Parameter(torch.zeros(2), requires_grad=False)

    def advance(self, x: Tensor) -> Any:
        self.target.data.mul_(0.9).add_(x.mean() + 1)
        self.other.data = self.other.data + self.target
        with torch.no_grad():
            self.target.mul_(1.01)
        return (self.target + self.other).sum().sin()


class _TorchGenerator(_Part):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def advance(self, x: Tensor) -> Any:
        return torch.rand((), generator=self.generator)


class _NumpyGenerator(_Part):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(1)
        self.older = np.random.RandomState(1)
        self.array = np.zeros(2)

    def advance(self, x: Tensor) -> Any:
        self.array += self.older.rand()
        return float(self.generator.random() + np.sin(self.array[0]))


class _PythonGenerator(_Part):
    def __init__(self) -> None:
        super().__init__()
        self.generator = random.Random(1)

    def advance(self, x: Tensor) -> Any:
        return self.generator.random()


@dataclass
class _Schedule:
    step: int = 0
    history: list[int] = field(default_factory=list)
    carry: Tensor = field(default_factory=lambda: torch.zeros(()))


class _Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = torch.zeros(())


class _Object(_Part):
    """A schedule (a dataclass) that each run advances, and an object with slots."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.slotted = _Schedule(), _Slotted()

    def advance(self, x: Tensor) -> Any:
        self.schedule.step += 1
        self.schedule.history.append(self.schedule.step)
        self.schedule.carry = self.schedule.carry + x.mean()
        self.slotted.value += self.schedule.step
        return (self.schedule.carry + self.slotted.value).sin()


class _Observer(_Part):
    """A running range of the inputs, as in fake quantization."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def advance(self, x: Tensor) -> Any:
        self.low.copy_(0.9 * self.low + 0.1 * x.min())
        self.high.copy_(0.9 * self.high + 0.1 * x.max())
        scale = float(self.high - self.low) / 15 + 1e-3
        return torch.fake_quantize_per_tensor_affine(x.mean(), scale, 0, -8, 7).tanh()


class _Membrane(_Part):
    """A spiking neuron; its membrane is None before the first run."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Any = None

    def advance(self, x: Tensor) -> Any:
        before = torch.zeros(()) if self.membrane is None else self.membrane
        self.membrane = 0.9 * before + x.abs().mean()
        spike = (self.membrane > 1).float()
        self.membrane = self.membrane - spike
        return self.membrane + spike


class _Carry(_Part):
    """Hidden state that is carried from one batch to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(1, 2).requires_grad_(False)
        self.hidden = (torch.zeros(1, 2),)

    def advance(self, x: Tensor) -> Any:
        self.hidden = (self.cell(x.mean().reshape(1, 1), self.hidden[0].to(x.dtype)).detach(),)
        return self.hidden[0].sum()


class _Hooked(_Part):
    """Two hooks that count their calls, one in its closure and one in the object of its method."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()
        count = 0
        self.read: Callable[[], int] = lambda: count

        def hook(*_: Any) -> None:
            nonlocal count
            count += 1

        self.inner.register_forward_hook(hook)
        self.counter = _Counter()
        self.inner.register_forward_hook(self.counter.hook)

    def advance(self, x: Tensor) -> Any:
        self.inner(x)
        return np.sin(self.read() + self.counter.total).item()


class _Counter:
    def __init__(self) -> None:
        self.total = 0

    def hook(self, *_: Any) -> None:
        self.total += 1


class _SpectralNorm(_Part):
    """A weight whose norm torch refines at each access in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = spectral_norm(nn.Linear(3, 3).requires_grad_(False))

    def advance(self, x: Tensor) -> Any:
        weight: Any = self.linear.weight
        return weight.sum().tanh()


STATES: dict[str, Callable[[], nn.Module]] = {
    "attribute": _Attribute,
    "buffer": _Buffer,
    "carry": _Carry,
    "containers": _Containers,
    "counting_hook": _Hooked,
    "membrane": _Membrane,
    "numpy_generator": _NumpyGenerator,
    "object": _Object,
    "observer": _Observer,
    "python_generator": _PythonGenerator,
    "spectral_norm": _SpectralNorm,
    "torch_generator": _TorchGenerator,
    "written_parameter": _Written,
}
"""Place of the state to the part that keeps it. Every state changes the output of the net."""


class StatefulNet(nn.Module):
    """A net behind parts that change with every forward pass, in training and in eval mode.

    Args:
        net: takes features (N, ...), or whole numbers, which the parts pass on unchanged.
        states: names of parts, from :data:`STATES`.
    """

    def __init__(self, net: nn.Module, states: Sequence[str]) -> None:
        super().__init__()
        self.states = nn.ModuleDict({name: STATES[name]() for name in states})
        self.net = net

    def forward(self, x: Tensor) -> Any:
        """Pass x through the parts, then through the net."""
        for part in self.states.values():
            x = part(x)
        return self.net(x)

    @property
    def credit_units(self) -> list[str]:
        """The credit units of the net."""
        return self._names(NetProtocol.credit_units)

    @property
    def readout(self) -> list[str]:
        """The readout of the net."""
        return self._names(NetProtocol.readout)

    @property
    def residual_stream(self) -> list[str] | None:
        """The residual stream of the net, if it declares one."""
        return self._names(NetProtocol.residual_stream) or None

    def _names(self, member: Any) -> list[str]:
        return [f"net.{name}" for name in asked(self.net, member, None) or ()]

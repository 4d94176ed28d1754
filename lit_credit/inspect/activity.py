"""Watching what the layers and activations of a net give, channel by channel, as it runs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_credit.functional import saturated_share
from lit_credit.inspect.activation_checkpoints import is_second_run
from lit_credit.inspect.channels import channel_of
from lit_credit.utils.nested import first_tensor, has_fractions

__all__ = ["Activity", "Site", "watch_activity"]

_ACTIVATION = re.compile(
    r"relu6?|(leaky|p|r)_?relu|[csg]?elu|silu|swish|mish|hard_?(tanh|swish|sigmoid)"
    r"|soft(plus|sign)|tanh|sigmoid|threshold"
)
"""Names of torch's functions, without underscores at their ends, and of classes, in small."""
_CLASS = re.compile(r"\w+activation|\w*gelu|gelutanh")
"""Names of the classes of other libraries, such as ``NewGELUActivation``."""
_BOUNDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}


@dataclass
class Site:
    """One activation, or the output of one layer, over all chunks.

    Attributes:
        low: (C,) the smallest value of each channel.
        high: (C,) the largest one.
        bounds: of a bounded activation, else None.
        at_bounds: sum over samples and channels of the values at a bound.
        count: number of values.
    """

    low: Tensor
    high: Tensor
    bounds: tuple[float, float] | None
    at_bounds: float = 0.0
    count: int = 0


class Activity:
    """The sites of each group of layers, in the order in which they ran.

    Attributes:
        activations: by group, and by place in it, the activations.
        outputs: the same for the outputs of layers with parameters.
    """

    def __init__(self) -> None:
        self.activations: dict[int, dict[Any, Site]] = {}
        self.outputs: dict[int, dict[Any, Site]] = {}
        self._places: dict[Any, int] = {}

    def begin(self) -> None:
        """Begin a forward pass."""
        self._places = {}

    def add(
        self, group: int, value: Tensor, channel: int, bounds: Any, *, activation: bool
    ) -> None:
        """Add the values of a site that ran.

        Args:
            group: index of the group.
            value: what the site gave.
            channel: the dimension of the features.
            bounds: of a bounded activation, else None.
            activation: whether it is an activation.
        """
        value = value.detach()
        if value.dim() == 0 or value.numel() == 0 or value.is_complex():
            return
        channel = channel if value.dim() > 1 else 0
        rows = value.movedim(channel, -1).reshape(-1, value.shape[channel])
        kind = activation, group, rows.shape[1]
        place = self._places[kind] = self._places.get(kind, -1) + 1
        sites = (self.activations if activation else self.outputs).setdefault(group, {})
        low, high = rows.amin(0), rows.amax(0)
        site = sites.setdefault((rows.shape[1], place), Site(low, high, bounds))
        site.low, site.high = torch.minimum(site.low, low), torch.maximum(site.high, high)
        if bounds is not None:
            self._count(site, rows)

    @staticmethod
    def _count(site: Site, rows: Tensor) -> None:
        low, high = site.bounds or (0.0, 0.0)
        site.at_bounds += float(saturated_share(rows, low, high)) * rows.numel()
        site.count += rows.numel()


class _Watch(TorchFunctionMode):
    """Sees functional activations outside of activation modules."""

    def __init__(self, activity: Activity) -> None:
        super().__init__()
        self.activity = activity
        self.group: int | None = None
        self.channel = -1
        self.hidden = 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if not self.hidden and _ACTIVATION.fullmatch(name):
            self.activated(result, name)
        return result

    def activated(self, value: Any, name: str) -> None:
        if self.group is not None and isinstance(value, Tensor) and not is_second_run():
            bounds = _BOUNDS.get(name)
            self.activity.add(self.group, value, self.channel, bounds, activation=True)


@contextmanager
def watch_activity(
    module: nn.Module, groups: Mapping[nn.Module, int], activity: Activity
) -> Iterator[None]:
    """Add to ``activity`` what a forward pass inside the ``with`` gives.

    An activation is a torch function such as ``relu`` or ``tanh``, or a submodule of such a name.
    It belongs to the layer with parameters that ran last, and to that layer's group. The features
    of layers are the last dimension, and the second one after a convolution or a batch norm.

    Not seen are activations inside of fused operations (``nn.LSTM``), and those of metrics.

    Args:
        module: the module that will run.
        groups: the group of each layer, a submodule with parameters of its own.
        activity: what is added to.
    """
    watch = _Watch(activity)

    def enter(layer: nn.Module, _: Any) -> None:
        watch.group = groups.get(layer)
        watch.channel = channel_of(layer)

    def leave(layer: nn.Module, _: Any, output: Any) -> None:
        group, value = groups.get(layer), first_tensor(output, has_fractions)
        if group is not None and value is not None and not is_second_run():
            activity.add(group, value, channel_of(layer), None, activation=False)

    def hide(*_: Any) -> None:
        watch.hidden += 1

    def unhide(part: nn.Module, _: Any, output: Any) -> None:
        watch.hidden -= 1
        name = type(part).__name__.lower()
        if _is_activation(part) and not watch.hidden:
            watch.activated(first_tensor(output, has_fractions), name)

    activity.begin()
    with ExitStack() as hooks:
        for part in module.modules():
            if next(part.parameters(recurse=False), None) is not None:
                hooks.callback(part.register_forward_pre_hook(enter).remove)
                hooks.callback(part.register_forward_hook(leave).remove)
            if _is_activation(part) or _is_metric(part):
                hooks.callback(part.register_forward_pre_hook(hide).remove)
                hooks.callback(part.register_forward_hook(unhide, always_call=True).remove)
        with watch:
            yield


def _is_activation(part: nn.Module) -> bool:
    name = type(part).__name__.lower()
    is_leaf = next(part.children(), None) is None
    return is_leaf and bool(_ACTIVATION.fullmatch(name) or _CLASS.fullmatch(name))


def _is_metric(part: nn.Module) -> bool:
    """Whether a submodule is a metric of torchmetrics, which may use a sigmoid."""
    return hasattr(type(part), "update") and hasattr(type(part), "compute")

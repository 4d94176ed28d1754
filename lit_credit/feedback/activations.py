"""Finding units that end in front of an activation, whose gradients lack its derivative."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_credit.inspect.unit_names import parse_unit
from lit_credit.utils.compiled import clean_name, submodule
from lit_credit.utils.nested import tensors_of
from lit_credit.utils.private_names import (
    AnyConvolution,
    AnyDropout,
    NormWithStatistics,
    own_submodules,
)

__all__ = ["ActivationWatch", "ends_bare", "followed_by_activation"]

_NOT_POINTWISE = ("MultiheadAttention", "GLU", "Softmin", "Softmax", "Softmax2d", "LogSoftmax")
_ACTIVATIONS = tuple(
    getattr(nn, name) for name in nn.modules.activation.__all__ if name not in _NOT_POINTWISE
)
_NORMS = (NormWithStatistics, nn.GroupNorm, nn.LayerNorm)
_BARE = (nn.Linear, nn.Bilinear, AnyConvolution, *_NORMS)
# What may stand between a layer and its activation.
_BETWEEN = (*_NORMS, nn.Identity, nn.Flatten, AnyDropout)
_BETWEEN_NAMES = ("Pool1d", "Pool2d", "Pool3d", "RMSNorm")

# The names of torch's functions and methods, without underscores at their ends.
_ACTIVATION_CALL = re.compile(
    r"relu6?|(leaky_|p|r)relu|[csg]?elu|silu|mish|hard(tanh|swish|sigmoid|shrink)|softplus|softsign"
    r"|softshrink|tanh(shrink)?|(log)?sigmoid|threshold|clamp(_min|_max)?|clip|(arc|a)?(sin|cos|tan)h?"
    r"|glu|square|abs(olute)?|r?pow|float_power|exp(2|m1)?|log(1p|addexp)?|r?sqrt|erf|expit"
    r"|(log_)?soft(max|min)|where|(maxi|mini)mum"
)
_CALL_BETWEEN = re.compile(
    r"\w+_norm|(alpha_)?dropout|(adaptive_)?(max|avg)_pool[123]d|(un)?flatten|view|reshape|permute"
    r"|transpose|(un)?squeeze|contiguous|clone|detach|to|float|double|type_as|getitem|get|chunk|split"
    r"|unbind|cat|stack|repeat|expand|[gl][te]|sign|neg|r?sub|sub|add|radd|r?mul|i?(true)?div(ide)?"
)
_SUM = re.compile(r"i?(r?add|r?sub)|cat|stack")
_PRODUCT = re.compile(r"i?(r?mul|multiply|(true)?div(ide)?)|masked_fill")
_OF_TWO = re.compile(r"max|min")


def ends_bare(module: nn.Module, unit: str) -> bool:
    """Whether a unit ends at the output of a linear or convolutional layer, or of a norm."""
    members, until = parse_unit(unit)
    last = submodule(module, members[-1])
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    return until is None and isinstance(last, _BARE)


def followed_by_activation(module: nn.Module, unit: str) -> list[str]:
    """The submodules registered after a unit that ends bare, up to and with an activation.

    Args:
        module: the net.
        unit: name of a unit.

    Returns:
        Names of submodules: norms, pools and the like, then a pointwise activation. The list is
        empty if there is no activation, or if the unit does not end bare.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        >>> followed_by_activation(net, "0"), followed_by_activation(net, "0+1+2")
        (['1', '2'], [])
    """
    found: list[str] = []
    name = parse_unit(unit).members[-1] if ends_bare(module, unit) else ""
    while name:
        name, following = _next(module, name)
        if following is None:
            break
        found.append(name)
        if isinstance(following, _ACTIVATIONS):
            return found
        if not _may_stand_between(following):
            break
    return []


def _next(module: nn.Module, name: str) -> tuple[str, nn.Module | None]:
    """The submodule registered after another one; after a Sequential's last, the parent's next."""
    while name:
        path, _, own = name.rpartition(".")
        parent = submodule(module, path)
        siblings = list(own_submodules(parent))  # both names of one registered twice
        later = siblings[siblings.index(own) + 1 :]
        if later:
            name = f"{path}.{later[0]}" if path else later[0]
            child = submodule(module, name)
            while isinstance(child, nn.Sequential) and len(child):
                name, child = f"{name}.{next(iter(own_submodules(child)))}", child[0]
            return clean_name(name), child
        name = path if isinstance(parent, nn.Sequential) else ""
    return "", None


def _may_stand_between(module: nn.Module) -> bool:
    return isinstance(module, _BETWEEN) or type(module).__name__.endswith(_BETWEEN_NAMES)


class ActivationWatch(TorchFunctionMode):
    """Sees, in one forward pass, which units hand their output to an activation.

    Operations on an output outside of units are recognized by their names, so functional
    activations are seen too. Nothing extra is computed.

    Attributes:
        followed: the name of the activation, by unit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.followed: dict[str, str] = {}
        self._outputs: dict[int, tuple[str, Tensor]] = {}  # keeps tensors: ids are reused
        self._hidden = 0

    def follow(self, unit: str, output: Tensor) -> None:
        """Watch the operations on a unit's output."""
        self._outputs[id(output)] = unit, output

    def unseen(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a forward so that its operations are not watched."""

        def hidden(*args: Any, **kwargs: Any) -> Any:
            self._hidden += 1
            try:
                return forward(*args, **kwargs)
            finally:
                self._hidden -= 1

        return hidden

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function, and check whether it is an activation of a unit's output."""
        result = func(*args, **(kwargs or {}))
        if self._outputs and not self._hidden:
            self._look(getattr(func, "__name__", "").strip("_"), args, kwargs or {}, result)
        return result

    def _look(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        given = tensors_of((args, kwargs))
        units = [self._outputs[id(x)][0] for x in given if id(x) in self._outputs]
        for unit in dict.fromkeys(units):
            # A sum with a tensor other than a bias is not this unit's output alone. Neither is a
            # sum of two units, as at the end of a residual block.
            others = [x for x in given if id(x) not in self._outputs]
            mixed = len(set(units)) > 1 or any(not isinstance(x, nn.Parameter) for x in others)
            twice = units.count(unit) > 1
            if (
                _ACTIVATION_CALL.fullmatch(name)
                or (_PRODUCT.fullmatch(name) and twice)
                or (_OF_TWO.fullmatch(name) and len(given) > 1)
            ):
                self.followed.setdefault(unit, name)
            elif _CALL_BETWEEN.fullmatch(name) and not (_SUM.fullmatch(name) and mixed):
                for tensor in tensors_of(result):
                    self.follow(unit, tensor)
            elif given and result is given[0]:  # changed in place, as by `+=`
                self._outputs.pop(id(result), None)

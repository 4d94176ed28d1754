"""Activations by name, by class, or by a function that makes one."""

from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

__all__ = ["Activation", "make_activation"]

Activation = str | Callable[[], nn.Module]
"""A name such as ``leaky_relu``, a class such as ``torch.nn.Softplus``, or a function."""

_CLASSES = (
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
    *(nn.Identity, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.RReLU),
    *(nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh),
    nn.Tanhshrink,
)
_BY_NAME: dict[str, type[nn.Module]] = {kind.__name__.lower(): kind for kind in _CLASSES}
_MODULES = ("torch.nn.modules.activation", "torch.nn.modules.linear", "torch.nn", "nn")


def make_activation(activation: Activation, argument: str = "activation") -> nn.Module:
    """Make an activation.

    Args:
        activation: the name of an elementwise activation of ``torch.nn``, in any spelling
            (``relu``, ``leaky_relu``, ``LeakyReLU``, ``torch.nn.LeakyReLU``); or a class, or a
            function without arguments, that returns a module.
        argument: name of the argument that it comes from, for the error.

    Returns:
        A new module.

    Raises:
        ValueError: if no activation has that name, or no module is returned.

    Example:
        >>> make_activation("leaky_relu"), make_activation("torch.nn.Softplus")
        (LeakyReLU(negative_slope=0.01), Softplus(beta=1.0, threshold=20.0))
        >>> make_activation(lambda: nn.LeakyReLU(0.2))
        LeakyReLU(negative_slope=0.2)
    """
    if isinstance(activation, str):
        # Names are looked up in torch.nn alone: a checkpoint must not name code to import.
        module, _, own = activation.rpartition(".")
        kind = _BY_NAME.get(own.replace("_", "").lower())
        if kind is None or (module and module not in _MODULES):
            raise ValueError(_unknown(activation, argument))
        return kind()
    if isinstance(activation, nn.Module):
        raise ValueError(
            f"`{argument}` is one {type(activation).__name__}, which all layers would share. Give "
            f"its class, or a function that makes it."
        )
    if not callable(activation):
        raise ValueError(_unknown(activation, argument))
    try:
        made = activation()
    except TypeError as error:
        raise ValueError(
            f"`{argument}` is {activation!r}, which cannot be called without arguments: {error} "
            "Give its arguments: in Python by functools.partial, in YAML as `init_args`."
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"`{argument}` is {activation!r}, which returns {type(made).__name__}, expected an "
            "nn.Module. Give a class of modules, such as torch.nn.Tanh."
        )
    return made


def _unknown(activation: object, argument: str) -> str:
    spelled = {name: _snake(kind) for name, kind in _BY_NAME.items()}
    key = str(activation).rpartition(".")[2].replace("_", "").lower()
    near = get_close_matches(key, spelled, 1)
    guess = f" Did you mean {spelled[near[0]]!r}?" if near else ""
    return (
        f"`{argument}` is {activation!r}, expected the name of an activation.{guess} Choose from: "
        f"{', '.join(sorted(spelled.values()))}. For one with arguments or of your own, give its "
        "class: in Python the class itself or a function, in YAML `class_path` and `init_args`."
    )


def _snake(kind: type[nn.Module]) -> str:
    return "leaky_relu" if kind is nn.LeakyReLU else kind.__name__.lower()

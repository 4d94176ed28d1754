"""Names and submodules of compiled modules, and running these modules eagerly."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from lit_credit.utils.late_lightning import misconfiguration
from lit_credit.utils.private_names import COMPILED, is_compiled
from lit_credit.utils.shared import Shared

__all__ = [
    "check_compiled",
    "clean_name",
    "compiled_part",
    "eager",
    "is_eager",
    "named_submodules",
    "named_weights",
    "submodule",
    "uncompiled",
]


def clean_name(name: str) -> str:
    """Return a dotted name as it would be without ``torch.compile``.

    Example:
        >>> clean_name("net._orig_mod.blocks.0")
        'net.blocks.0'
    """
    return ".".join(part for part in name.split(".") if part != COMPILED)


def named_submodules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``module.named_modules()`` as it would be without ``torch.compile``.

    Example:
        >>> net = nn.Sequential(torch.compile(nn.Linear(2, 2)))
        >>> [name for name, _ in named_submodules(net)]
        ['', '0']
    """
    for name, child in module.named_modules():
        if uncompiled(child) is child:
            yield clean_name(name), child


def named_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by their names without ``torch.compile``; a tied one under all its names."""
    named = module.named_parameters(remove_duplicate=False)
    return {clean_name(name): parameter for name, parameter in named}


def submodule(module: nn.Module, name: str) -> nn.Module:
    """Return ``module.get_submodule(name)`` without the wrapper of ``torch.compile``."""
    return uncompiled(module.get_submodule(name))


def eager() -> AbstractContextManager[Any]:
    """Run compiled modules as plain Python inside the ``with``, so that their hooks run.

    Compiled code is kept and used again afterwards. With torch 2.4 and 2.5 this context does
    nothing, and :func:`check_compiled` refuses compiled modules. Several threads may be inside at
    once.
    """
    return _EAGER


def is_eager() -> bool:
    """Whether the code runs inside of :func:`eager`."""
    return _EAGER.is_entered


def check_compiled(module: nn.Module) -> None:
    """Refuse a compiled module if torch cannot run it eagerly for a while.

    Raises:
        MisconfigurationException: if ``module`` or a part of it is compiled, and torch is older
            than 2.6.
    """
    part = compiled_part(module)
    if part is not None and not hasattr(torch.compiler, "set_stance"):
        raise misconfiguration(
            f"{part!r} is compiled, and torch {torch.__version__} cannot run it eagerly for the "
            "length of a measurement. Use torch 2.6 or newer, or do not compile in this run."
        )


def compiled_part(module: nn.Module) -> str | None:
    """Name of the first compiled submodule (type of ``module`` if that is compiled), or None.

    Modules may be compiled by ``torch.compile(module)``, by ``module.compile()``, or by Lightning
    from the former.
    """
    for name, child in module.named_modules():
        if is_compiled(child) or uncompiled(child) is not child:
            return clean_name(name) or type(uncompiled(child)).__name__
    return None


def uncompiled(module: nn.Module) -> nn.Module:
    """The module inside of the wrapper of ``torch.compile``, or the module itself."""
    inner = getattr(module, COMPILED, None)
    return inner if isinstance(inner, nn.Module) else module


def _forced_eager() -> AbstractContextManager[Any]:
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("force_eager")


_EAGER = Shared(_forced_eager)

"""Raising an error about a net whose attention cannot be seen."""

import re
from collections.abc import Iterator, Sequence
from inspect import unwrap
from types import CodeType, FunctionType
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_credit.inspect.attention.recording import AttentionCall, looks_like_attention
from lit_credit.utils.compiled import named_submodules
from lit_credit.utils.private_names import attention_implementation
from lit_credit.utils.short_text import choice

__all__ = ["check_recorded"]

_FUSED = re.compile(
    r"flex_attention|flash_?attn|flash_attention|xformers|memory_efficient_attention|sage_?attn"
)
_BESIDE = re.compile("norm|drop")
_MOST_LINES = 10


def check_recorded(module: nn.Module, calls: Sequence[AttentionCall]) -> None:
    """Refuse a forward pass in which no attention was seen.

    Args:
        module: the module that ran under :func:`recorded_attention`.
        calls: what it recorded.

    Raises:
        MisconfigurationException: if there is no call. The error lists the submodules that look
            like attention, the fused kernels (flex attention, flash-attn, xformers, ...) that their
            code names, and the remedy.
    """
    if calls:
        return
    found = [line for name, child in named_submodules(module) if (line := _described(name, child))]
    shown = choice(found, most=_MOST_LINES, separator="\n  ")
    suspects = shown if found else "none by its class, its name or the functions it calls"
    raise MisconfigurationException(
        f"no attention was seen in the forward pass of {type(module).__name__}. Submodules that "
        f"look like attention:\n  {suspects}\n"
        "Seen are torch's scaled_dot_product_attention, a softmax inside a submodule whose class "
        "or attribute is called attention or attn, and a submodule with `returns_attention`. "
        "Choose such an implementation (Hugging Face: `attn_implementation='sdpa'` or 'eager'), "
        "or compute A in a submodule with `returns_attention = True` and "
        "`forward(scores, allowed=None)`."
    )


def _described(name: str, module: nn.Module) -> str | None:
    """One line about a submodule that seems to be attention; None for any other."""
    kernels = sorted({hit for word in _words(module) for hit in _FUSED.findall(word.lower())})
    suspect = looks_like_attention(name, module) and not _BESIDE.search(name.rpartition(".")[2])
    if not kernels and not suspect:
        return None
    reason = f", whose code names {', '.join(kernels)}: not visible" if kernels else ""
    return f"{name or 'the module itself'} ({type(module).__name__}){reason}"


def _words(module: nn.Module) -> Iterator[str]:
    """Names of a submodule's classes, and of the functions that its forward calls."""
    kind = type(module)
    yield from (f"{parent.__module__}.{parent.__name__}" for parent in kind.__mro__)
    if looks_like_attention("", module):  # Hugging Face: every submodule has the net's config
        yield attention_implementation(getattr(module, "config", None))
    functions: list[Any] = [kind.forward]
    for function in functions:  # grows by the functions of the same file that are called
        function = unwrap(function)
        for name in _used_names(getattr(function, "__code__", None)):
            thing = getattr(kind, name, function.__globals__.get(name))
            yield f"{name} {getattr(thing, '__module__', '')}.{getattr(thing, '__name__', '')}"
            own = isinstance(thing, FunctionType) and thing.__module__ == function.__module__
            if own and thing not in functions:
                functions.append(thing)


def _used_names(code: CodeType | None) -> Iterator[str]:
    """Global names and attributes in a function, and in the functions inside it."""
    if code is not None:
        yield from code.co_names
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from _used_names(constant)

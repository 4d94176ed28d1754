"""Running the forward pass of a rule through torch.compile."""

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_credit.inspect.state.guard import held
from lit_credit.utils.compiled import eager
from lit_credit.utils.private_names import PRIVATE_TORCH, RECOMPILED_TOO_OFTEN
from lit_credit.utils.short_text import choice, shortened

__all__ = ["compile_options", "run_compiled"]

Result = TypeVar("Result")

_COMPILED: "WeakKeyDictionary[nn.Module, dict[str, Callable[..., Any]]]" = WeakKeyDictionary()
"""Not attributes of the rule: a copy of a rule must not run the code of the original."""


def compile_options(given: bool | Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of ``torch.compile``, or None if nothing is compiled.

    Args:
        given: the argument ``compile`` of a rule.

    Raises:
        ValueError: if an argument is unknown, or torch is older than 2.6.
    """
    if isinstance(given, bool) and not given:
        return None
    known = [name for name in inspect.signature(torch.compile).parameters if name != "model"]
    options = {} if isinstance(given, bool) else given
    wrong = not isinstance(options, Mapping)
    unknown = [] if wrong else [name for name in options if name not in known]
    if wrong or unknown:
        raise ValueError(
            f"`compile` is {given!r}, expected true, false, or arguments of torch.compile by name: "
            f"{choice(known, unknown[0] if unknown else None)}."
        )
    if not hasattr(torch.compiler, "set_stance"):
        raise ValueError(
            f"`compile` is {given!r}, which needs torch 2.6 or newer; this is {torch.__version__}: "
            "diagnostics could not run the net eagerly. Leave it out."
        )
    return {"fullgraph": True, **options}


def run_compiled(
    rule: nn.Module, options: dict[str, Any], function: Callable[..., Result], *args: Any
) -> Result:
    """Call ``function(rule, *args)``, compiled at its first call for this rule.

    Args:
        rule: the rule.
        options: arguments of ``torch.compile``.
        function: a plain function of the rule.
        *args: its other arguments.

    Raises:
        ValueError: if torch does not compile it.
        Exception: what the function raises.
    """
    found = _COMPILED.setdefault(rule, {})
    name = function.__qualname__
    if name not in found:
        found[name] = torch.compile(_copied(function), **options)
    try:
        result: Result = found[name](rule, *args)
    except Exception as error:
        if not type(error).__module__.startswith((PRIVATE_TORCH, "torch.fx.")):
            raise  # not the compiler's own
        if type(error).__name__ == RECOMPILED_TOO_OFTEN:
            rank_zero_warn(
                f"`compile`: torch has compiled {type(rule.net).__name__} anew too often, because "
                "something that the code reads changes from step to step, such as a counter or a "
                "list that grows. The run goes on eagerly. Keep such numbers in tensors, or give "
                "torch.compile a larger `recompile_limit`; TORCH_LOGS=recompiles names the cause."
            )
            found[name] = function
            return function(rule, *args)
        with held(rule), eager():
            function(rule, *args)  # an error of the batch itself is the one to report
        raise ValueError(
            f"`compile` is set, but torch {torch.__version__} does not compile "
            f"{type(rule.net).__name__} under {type(rule).__name__} as one graph: {_reason(error)} "
            "Leave `compile` out, or set `compile: {fullgraph: false}`, which compiles in parts "
            "and may be slower than no compilation."
        ) from error
    return result


def _copied(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with code of its own.

    torch keeps what it has compiled with the code of a function, and compiles one code a few times
    only, but a process may train many rules.
    """
    if not isinstance(function, FunctionType):
        return function
    copy = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _reason(error: Exception) -> str:
    """What the compiler says, without its hints, and the line that it stopped at."""
    said, _, where = str(error).partition("from user code:")
    said = " ".join(said.partition("Hint:")[0].partition("Developer debug")[0].split())
    lines = [line.strip() for line in where.partition("Set TORCH")[0].splitlines()]
    code = [line for line in lines if line.strip("^~ ")]
    at = f" It stops at: {' '.join(code[-2:])}." if code else ""
    return shortened(said, 300) + at

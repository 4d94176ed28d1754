"""Shortening the errors of jsonargparse to one line."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from lit_credit.cli.arguments import ArgumentsError
from lit_credit.utils.short_text import choice

__all__ = ["ShortErrors", "short_reason"]

_NOISE = re.compile(
    r"^(Does not validate against|Subtypes: |Errors:$|Expected a <class 'NoneType'>"
    r"|Expected a path but |Given value type: |The subcommand's "
    r"|Subclass types expect one of|a class path \(str\)$|a dict with|Not a valid subclass of )"
)
_LONGEST = 500


def _unknown(match: re.Match[str]) -> str:
    # This import loads every class; most reasons do not need it.
    from lit_credit.cli.class_rules import exported_classes

    name = match[1]
    names = {path.rpartition(".")[2] for path in exported_classes()}
    if name in names:
        return f"{name} is no class of the kind that is expected here"
    close = get_close_matches(name, names, n=1)
    known = f"no class {name} is known" + (f"; did you mean {close[0]}?" if close else ".")
    return f"{known} A class of your own is named with its module: my_module.{name}"


def _not_an_argument(match: re.Match[str]) -> str:
    """Name the arguments of a class that were meant by another word."""
    module, _, name = match[1].rpartition(".")
    try:
        known = list(signature(getattr(import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return match[0]
    close = get_close_matches(match[2], known, n=1)
    meant = f"; did you mean {close[0]}?" if close else "."
    return f"{match[0]}{meant} {name} takes {choice(known, match[2])}"


def _unrecognized(match: re.Match[str]) -> str:
    """Name the option that was meant, of the command or of the Trainer."""
    from lit_credit.cli.short_help import option_names  # it reads Lightning's source

    options = {option.strip("-").rpartition(".")[2]: option for option in option_names("fit")}
    name = match[1].rpartition(".")[2]
    close = [name] if name in options else sorted(get_close_matches(name, options, n=2, cutoff=0.7))
    meant = " or ".join(options[one] for one in close)
    return f"{match[0]} (did you mean {meant}?)" if meant else match[0]


_REWRITTEN: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^Parser key \"([^\"]+)\":", r"\1:"),
    (r"^Problem with given class_path '([^']+)':", r"\1:"),
    (r"Expected a dot import path string: (.+)", _unknown),
    (r"Expected a <class '([^']+)'>", r"expected \1"),
    (r"Expected a typing\.Literal\[(.+?)\]", r"expected one of \1"),
    (r"Type typing\.Callable\S*\[.*\] expects a function or a callable class: ", ""),
    (
        r"Option 'class_path' is not accepted",
        "beside `class_path` there may only be `init_args`, which all arguments go below",
    ),
    (r"^Problems parsing config: ", "not YAML: "),
    (r'^in "<unicode string>", ', "at "),
    (r"[Uu]nrecognized arguments: --([\w.]+).*", _unrecognized),
    (
        r"^the following arguments are required: .*\.(model|data)\b.*",
        r"\g<0>. A configuration gives them: `--config FILE`",
    ),
    (r"^Unexpected config:.*", "a `--config` holds no mapping of names to values"),
    (r" Got value: Namespace\(.*", ""),
)


class ShortErrors(ArgumentParser):
    """A parser that reports errors in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise :class:`ArgumentsError` with the reason in one line."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        raise ArgumentsError("lit-credit", short_reason(message), command) from ex


def short_reason(message: Any) -> str:
    """Key, class, field, expected type and given value of an error of jsonargparse.

    Args:
        message: several lines, or an exception with such a message.

    Example:
        >>> short_reason('''Parser key "trainer.max_epochs":
        ...   Does not validate against any of the Union subtypes
        ...   Subtypes: [<class 'int'>, <class 'NoneType'>]
        ...   Errors:
        ...     - Expected a <class 'int'>
        ...     - Expected a <class 'NoneType'>
        ...   Given value type: <class 'str'>
        ...   Given value: many''')
        'trainer.max_epochs: expected int. Got: many'
    """
    lines = [line.strip().removeprefix("- ") for line in str(message).splitlines()]
    kept = [line for line in dict.fromkeys(lines) if line and not _NOISE.match(line)]
    given = [line for line in kept if line.startswith("Given value: ")]
    kept = [line for line in kept if line not in given]
    if kept and kept[0].startswith("Unexpected config:"):
        kept = kept[:1]
    for pattern, text in _REWRITTEN:
        kept = [re.sub(pattern, text, line) for line in kept]
        given = [re.sub(pattern, text, line) for line in given]
    reason = re.sub(r"(expected \w+) (?=expected )", r"\1 or ", " ".join(kept))
    reason = re.sub(r"([\w.]+): Option '(\w+)' is not accepted", _not_an_argument, reason)
    if given and re.search(r"expected [\w.]+$", reason):
        reason += f". Got: {given[0].removeprefix('Given value: ')}"
    return reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."

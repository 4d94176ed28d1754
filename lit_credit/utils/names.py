"""Matching names of submodules with glob patterns."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from lit_credit.utils.compiled import clean_name, named_submodules
from lit_credit.utils.short_text import choice

__all__ = ["match_names", "matched_units", "shown_names", "submodule_names"]


def submodule_names(module: nn.Module) -> list[str]:
    """The names of all submodules below ``module``, in the order of their registration.

    The names lack the ``_orig_mod`` that ``torch.compile`` adds. Patterns need not have it either.
    """
    return [name for name, _ in named_submodules(module) if name]


def shown_names(names: Iterable[str]) -> list[str]:
    """Names of submodules without ``net.`` if all are below ``net``, as tags and errors have them.

    Example:
        >>> shown_names(["net", "net.stem", "net.blocks.0"]), shown_names(["net.stem", "head"])
        (['stem', 'blocks.0'], ['net.stem', 'head'])
    """
    names = list(names)
    if not all(name == "net" or name.startswith("net.") for name in names):
        return names
    return [name.removeprefix("net.") for name in names if name != "net"]


def match_names(patterns: Sequence[str], names: Iterable[str], argument: str) -> list[str]:
    """Expand glob patterns over dotted names; ``*`` does not cross a dot.

    A pattern that matches nothing may lack a prefix that all its matches share: ``blocks.*`` then
    stands for ``model.encoder.blocks.*`` if no other names end like it. If that matches nothing
    either, ``*`` crosses dots: ``*attn`` gives ``blocks.0.attn``, ``blocks.1.attn``, but not the
    submodules inside these.

    Args:
        patterns: names or patterns such as ``blocks.*``; the result keeps their order.
        names: all names to choose from, in forward order.
        argument: the argument that the patterns come from, for the error.

    Returns:
        The matched names, pattern by pattern.

    Raises:
        ValueError: if a pattern matches nothing or fits below several prefixes, or a name is
            matched twice.

    Example:
        >>> match_names(["stem", "blocks.*"], ["stem", "blocks.0", "blocks.0.norm"], "units")
        ['stem', 'blocks.0']
        >>> match_names(["blocks.*"], ["model.stem", "model.blocks.0", "model.blocks.1"], "units")
        ['model.blocks.0', 'model.blocks.1']
    """
    names = list(names)
    found: list[str] = []
    for pattern in patterns:
        hits = (
            [name for name in names if _matches(name, pattern)]
            or _below_one_prefix(names, pattern, argument)
            or _across_dots(names, pattern)
        )
        if not hits:
            raise ValueError(
                f"`{argument}`: {pattern!r} matches nothing. Choose from: {choice(names, pattern)}."
            )
        for hit in hits:
            if hit in found:
                raise ValueError(
                    f"`{argument}`: {hit!r} is matched twice, the second time by {pattern!r}. "
                    "Make the patterns disjoint."
                )
            found.append(hit)
    return found


def check_units(
    units: Sequence[str] | None,
    otherwise: str = "what the module declares",
    argument: str = "units",
) -> None:
    """Refuse ``units`` that are a single text or empty, instead of a list of names.

    Args:
        units: names or patterns.
        otherwise: what None stands for; empty if None is refused too.
        argument: the argument that the units come from, for the error.

    Raises:
        ValueError: naming the argument, its value and what was expected.
    """
    if units is None and otherwise:
        return
    if isinstance(units, str) or not units:
        raise ValueError(
            f"`{argument}` is {units!r}, expected a list of names or patterns such as "
            f"['blocks.*']{otherwise and f', or None for {otherwise}'}."
        )


def matched_units(
    patterns: Sequence[str], names: Sequence[str], argument: str = "units"
) -> list[str]:
    """Choose the ``names`` that patterns match, as names of a module or of its ``net``.

    Args:
        patterns: as in :func:`match_names`.
        names: all names to choose from, in forward order.
        argument: the argument that the patterns come from, for the error.

    Returns:
        The matched names, pattern by pattern.

    Raises:
        ValueError: if a pattern matches nothing, or a name is matched twice.

    Example:
        >>> matched_units(["blocks.*"], ["net.blocks.0", "net.blocks.1"])
        ['net.blocks.0', 'net.blocks.1']
    """
    below_net = [name.removeprefix("net.") for name in names if name.startswith("net.")]
    direct = any(_matches(name, pattern) for name in names for pattern in patterns)
    if below_net and not direct:
        return [f"net.{name}" for name in match_names(patterns, below_net, argument)]
    return match_names(patterns, names, argument)


def _below_one_prefix(names: Sequence[str], pattern: str, argument: str) -> list[str]:
    """The names whose last parts a pattern matches, if they all share one prefix."""
    if pattern.startswith(("*", "?", "[")):  # a leading wildcard would match below every prefix
        return []
    depth = pattern.count(".") + 1
    hits: dict[str, list[str]] = {}
    for name in names:
        parts = clean_name(name).split(".")
        if len(parts) > depth and _matches(".".join(parts[-depth:]), pattern):
            hits.setdefault(".".join(parts[:-depth]), []).append(name)
    if len(hits) > 1:
        ways = [f"{prefix}.{pattern}" for prefix in hits]
        raise ValueError(
            f"`{argument}`: {pattern!r} matches nothing as it is, and may begin in {len(ways)} "
            f"ways: {choice(ways, most=8)}. Write one of them, or '*.{pattern}' for all."
        )
    return next(iter(hits.values()), [])


def _across_dots(names: Sequence[str], pattern: str) -> list[str]:
    """The outermost names that a pattern matches if ``*`` crosses dots."""
    if "*" not in pattern:
        return []
    hits = [name for name in names if fnmatchcase(clean_name(name), clean_name(pattern))]
    known = set(hits)
    return [
        name
        for name in hits
        if not any(name[:at] in known for at, sign in enumerate(name) if sign == ".")
    ]


def _matches(name: str, pattern: str) -> bool:
    parts, globs = clean_name(name).split("."), clean_name(pattern).split(".")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))

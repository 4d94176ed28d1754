"""Parsing and expanding the names of units, such as ``fc1+act1`` and ``fc1->fc2``.

A unit ``a+b`` begins at the input of ``a`` and ends at the output of ``b``; everything that runs
between the two belongs to it. A unit ``a->c`` ends at the input of ``c``, so that it also holds
functional activations, pooling and flattening before ``c``. A unit ``a+b->c`` combines both: it has
the parameters of ``a`` and ``b``, and ends at the input of ``c``.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import nn

from lit_credit.utils.compiled import clean_name, submodule
from lit_credit.utils.names import match_names
from lit_credit.utils.short_text import choice

__all__ = [
    "UnitName",
    "all_names",
    "choose_units",
    "expand_units",
    "is_composite",
    "parse_unit",
    "unit_aliases",
    "unit_modules",
    "with_prefix",
]

_JOIN, _UNTIL = "+", "->"


class UnitName(NamedTuple):
    """The parts of a unit's name.

    Attributes:
        members: names of its submodules, in forward order.
        until: name of the submodule at whose input the unit ends; None if the unit ends at the
            output of its last member.
    """

    members: tuple[str, ...]
    until: str | None = None

    def __str__(self) -> str:
        """The name that :func:`parse_unit` reads."""
        joined = _JOIN.join(self.members)
        return joined if self.until is None else f"{joined}{_UNTIL}{self.until}"


@lru_cache(maxsize=4096)  # units are parsed at every step
def parse_unit(name: str) -> UnitName:
    """Split the name of a unit into its parts.

    Example:
        >>> parse_unit("conv1+bn1->conv2")
        UnitName(members=('conv1', 'bn1'), until='conv2')
        >>> parse_unit("blocks.0")
        UnitName(members=('blocks.0',), until=None)
    """
    head, arrow, until = (part.strip() for part in name.partition(_UNTIL))
    members = tuple(part.strip() for part in head.split(_JOIN))
    return UnitName(members, until if arrow else None)


def is_composite(name: str) -> bool:
    """Whether a unit has several members, or ends at an input."""
    return _JOIN in name or _UNTIL in name


def unit_modules(module: nn.Module, name: str) -> list[nn.Module]:
    """The members of a unit, in forward order."""
    return [submodule(module, member) for member in parse_unit(name).members]


def with_prefix(name: str, prefix: str) -> str:
    """The unit's name with ``prefix`` before each of its submodules.

    Example:
        >>> with_prefix("fc1+act1", "net.")
        'net.fc1+net.act1'
    """
    members, until = parse_unit(name)
    return str(
        UnitName(tuple(prefix + m for m in members), None if until is None else prefix + until)
    )


def all_names(module: nn.Module) -> list[str]:
    """Names of all submodules; a submodule registered twice appears under both names."""
    return [clean_name(n) for n, _ in module.named_modules(remove_duplicate=False) if n]


def expand_units(
    patterns: Sequence[str],
    names: Iterable[str],
    argument: str,
    after: str | None = None,
    aliases: Iterable[str] = (),
) -> list[str]:
    """Expand the patterns of units over the names of submodules.

    Joined patterns are paired in order: ``conv*+relu*`` gives ``conv1+relu1``, ``conv2+relu2``. A
    name without a wildcard joins every unit: ``fc*+relu``. A name that ends in ``->`` is a unit up
    to the input of the next unit; for the last unit, up to the input of ``after``.

    Args:
        patterns: names or patterns, in forward order.
        names: all names to choose from, in order.
        argument: the argument that the patterns come from, for the error.
        after: name of the submodule that follows the last unit.
        aliases: further names of submodules, which joined patterns may use.

    Returns:
        The names of the units, pattern by pattern.

    Raises:
        ValueError: if a pattern matches nothing, a unit is matched twice, joined patterns match
            different numbers of names, or ``after`` is None and the last unit ends in ``->``.

    Example:
        >>> expand_units(["fc*+act", "out->"], ["fc1", "fc2", "act", "out"], "units", after="head")
        ['fc1+act', 'fc2+act', 'out->head']
    """
    names = list(names)
    if not any(map(is_composite, patterns)):
        return match_names(patterns, names, argument)
    every = list(dict.fromkeys([*names, *aliases]))
    units: list[UnitName] = []
    for pattern in patterns:
        members, until = parse_unit(pattern)
        parts = [*members, *([until] if until else [])]
        if not all(parts):
            raise ValueError(
                f"`{argument}`: {pattern!r} has an empty part. Write 'fc1+act1', 'fc1->fc2', or "
                "'fc1->' for a unit that ends at the input of the next one."
            )
        for row in _paired(pattern, parts, every if len(parts) > 1 else names, argument):
            found = tuple(row[: len(members)])
            units.append(UnitName(found, row[-1] if until else until))
    twice = next((unit for unit in units if units.count(unit) > 1), None)
    if twice is not None:
        raise ValueError(f"`{argument}`: '{twice}' is matched twice. Make the patterns disjoint.")
    ends = [*(unit.members[0] for unit in units[1:]), after]
    if units and units[-1].until == "" and after is None:
        raise ValueError(
            f"`{argument}`: the last unit, '{units[-1]}', ends at the input of what follows, but "
            "nothing is known to follow. Name it in `readout`, or behind the arrow: "
            f"'{units[-1]}NAME'."
        )
    return [
        str(unit._replace(until=end) if unit.until == "" else unit)
        for unit, end in zip(units, ends, strict=False)
    ]


def unit_aliases(units: Sequence[str]) -> dict[str, str]:
    """Map every name of a unit, its full name included, to the unit.

    A unit of several submodules is also known by its first member, by its members without the
    arrow, and by its members and the arrow alone.

    Example:
        >>> unit_aliases(["conv->head"])
        {'conv': 'conv->head', 'conv->': 'conv->head', 'conv->head': 'conv->head'}
    """
    known: dict[str, str] = {}
    for unit in units:
        members, until = parse_unit(unit)
        short = str(UnitName(members, None if until is None else ""))
        for alias in (members[0], _JOIN.join(members), short):
            known.setdefault(alias, unit)
    return known | {unit: unit for unit in units}


def choose_units(pattern: str, units: Sequence[str], argument: str) -> list[str]:
    """Choose the units that a pattern matches by any of their names.

    Args:
        pattern: as in :func:`lit_credit.utils.names.match_names`.
        units: names of units.
        argument: the argument that the pattern comes from, for the error.

    Raises:
        ValueError: if the pattern matches nothing.

    Example:
        >>> choose_units("fc*", ["fc1+act1", "fc2->head", "conv"], "units")
        ['fc1+act1', 'fc2->head']
    """
    known = unit_aliases(units)
    try:
        hits = match_names([pattern], known, argument)
    except ValueError:
        hits = match_names([pattern], units, argument)  # whose error lists the units alone
    return list(dict.fromkeys(known[hit] for hit in hits))


def _paired(
    pattern: str, parts: Sequence[str], names: Sequence[str], argument: str
) -> list[list[str]]:
    hits = [match_names([part], names, argument) for part in parts]
    wild = [any(sign in part for sign in "*?[") for part in parts]
    counts = {len(found) for found, is_wild in zip(hits, wild, strict=True) if is_wild} or {1}
    if len(counts) > 1:
        pairs = zip(parts, hits, strict=True)
        shown = "; ".join(f"{part!r} {choice(hit, longest=250)}" for part, hit in pairs)
        raise ValueError(
            f"`{argument}`: the parts of {pattern!r} match unequally many submodules: {shown}. "
            "They are paired in order: make them equally many, or write the units out."
        )
    (count,) = counts
    columns = [
        found if is_wild else found * count for found, is_wild in zip(hits, wild, strict=True)
    ]
    return [list(row) for row in zip(*columns, strict=True)]

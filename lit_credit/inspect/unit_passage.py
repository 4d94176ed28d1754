"""Following a forward pass through the units of a net."""

import operator
from collections.abc import Sequence

from torch import nn

from lit_credit.inspect.unit_names import is_composite, parse_unit, unit_modules
from lit_credit.utils.compiled import submodule

__all__ = ["Passage", "passage_at"]


class Passage:
    """The progress of one forward pass through one unit.

    Args:
        module: the net.
        name: the unit's name.

    Attributes:
        name: the unit's name.
        modules: the unit's members.
        until: the submodule at whose input the unit ends, or None.
        step: how many members have begun to run.
        is_open: whether the unit has begun and not ended.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.name = name
        self.modules, self.until = _found(module, name)
        self.is_composite = is_composite(name)
        self.step = 0
        self.is_open = False

    def reset(self) -> None:
        """Begin another forward pass."""
        self.step = 0
        self.is_open = False

    def fits(self, module: nn.Module) -> bool:
        """Whether the unit of ``module`` still has the same submodules."""
        modules, until = _found(module, self.name)
        return until is self.until and all(map(operator.is_, modules, self.modules))

    @property
    def parts(self) -> list[nn.Module]:
        """The members, and the submodule at whose input the unit ends."""
        return self.modules if self.until is None else [*self.modules, self.until]

    @property
    def has_run(self) -> bool:
        """Whether all members have begun to run."""
        return self.step == len(self.modules)

    @property
    def may_end(self) -> bool:
        """Whether the unit is open and all its members have begun to run."""
        return self.is_open and self.has_run

    def has_member(self, module: nn.Module) -> bool:
        """Whether ``module`` is one of the members."""
        return any(member is module for member in self.modules)

    def waits_for(self, module: nn.Module) -> bool:
        """Whether the unit is open and ``module`` is its next member."""
        return self.is_open and not self.has_run and self.modules[self.step] is module

    def advance(self) -> None:
        """Note that the next member begins to run."""
        self.step += 1
        self.is_open = True


def _found(module: nn.Module, unit: str) -> tuple[list[nn.Module], nn.Module | None]:
    """The members of a unit, and the submodule at whose input it ends."""
    until = parse_unit(unit).until
    return unit_modules(module, unit), None if until is None else submodule(module, until)


def passage_at(module: nn.Module, passages: Sequence[Passage]) -> Passage | None:
    """Find the unit that a run of ``module`` belongs to, and advance it by one member.

    A submodule may be a member of several units, such as one ``nn.ReLU`` behind every layer. Its
    run belongs to the open unit that waits for it.

    Args:
        module: the submodule that begins to run.
        passages: those of the units that it is a member of.

    Returns:
        The unit's passage, or None if the run belongs to no unit.

    Raises:
        ValueError: if two units wait for ``module``, or a unit that starts with it runs again.
    """
    waiting = [passage for passage in passages if passage.waits_for(module)]
    if len(waiting) > 1:
        raise ValueError(
            f"units {waiting[0].name!r} and {waiting[1].name!r} both wait for one submodule that "
            "they share, so it cannot be told which of them it belongs to when it runs. Give each "
            "a submodule of its own, or end them by '->' at the input of what follows."
        )
    begun = [passage for passage in passages if passage.modules[0] is module]
    free = [passage for passage in begun if passage.step == 0]
    if not waiting and begun and not free:
        raise ValueError(
            f"unit {begun[-1].name!r} runs more than once in one forward pass, so it has no single "
            "output to credit. Name a submodule that contains all of its uses."
        )
    for passage in [*waiting, *free][:1]:
        passage.advance()
        return passage
    return None

"""Checking units: disjoint, complete, with members in a row, and cut apart."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from lit_credit.feedback.broadcast import ENTRIES
from lit_credit.feedback.units import UnitGraphs
from lit_credit.inspect.unit_names import parse_unit, unit_modules
from lit_credit.utils.nested import tensors_of
from lit_credit.utils.private_names import function_of
from lit_credit.utils.short_text import choice

__all__ = [
    "check_coverage",
    "check_cut",
    "check_recompute",
    "check_sent",
    "stray_parameters",
    "unreached",
]


def check_coverage(module: nn.Module, units: Sequence[str], readout: Sequence[str]) -> None:
    """Check that every trainable parameter belongs to one unit or to the readout.

    Args:
        module: the net.
        units: names of the units.
        readout: names of the submodules after the last unit.

    Raises:
        ValueError: if one of the named submodules contains another, or if trainable parameters
            lie outside of all of them; the error lists them.
    """
    named = [member for name in [*units, *readout] for member in parse_unit(name).members]
    for name in named:
        inner = next((other for other in named if other.startswith(f"{name}.")), None)
        # One submodule without parameters, such as a ReLU, may serve several units.
        twice = named.count(name) > 1 and any(True for _ in module.get_submodule(name).parameters())
        if inner or twice:
            raise ValueError(
                f"`units` and `readout` must be disjoint, but {name!r} contains {inner or name!r}. "
                "Name either the whole or its parts."
            )
    stray = stray_parameters(module, named)
    if stray:
        raise ValueError(
            f"parameters outside of `units` and `readout` get no credit: {choice(stray)}. "
            f"{_remedy(module, units, stray)}"
        )


def _remedy(module: nn.Module, units: Sequence[str], stray: Sequence[str]) -> str:
    idle = [
        name
        for name in units
        if not any(True for part in unit_modules(module, name) for _ in part.parameters())
    ]
    if idle:
        layer = stray[0].rpartition(".")[0] or "LAYER"
        return (
            f"Units {choice(idle)} have no parameters that could learn from their credit: join "
            f"each to the layer in front of it, as in '{layer}+{idle[0]}'."
        )
    bare = [name for name in stray if _encloses(name.rpartition(".")[0], units)]
    if bare:
        rest = [name for name in stray if name not in bare]
        others = (
            f" The others, {choice(rest)}, can be named in `units` or `readout`." if rest else ""
        )
        return (
            f"{choice(bare)} cannot be named: no submodule holds it without a unit. Set `stray` to "
            "'train' (learn from the credit of the unit that follows) or 'freeze' (keep at the "
            f"initial values).{others}"
        )
    return (
        "Name the submodule of each in `units`, joined to the activation that follows it if there "
        "is one ('fc1+act1', or 'fc1->' up to the input of the next unit), or in `readout`, if it "
        "comes after the last unit; or set `stray` to 'freeze' (keep them at their initial values) "
        "or 'train' (learn from the credit of the unit that follows)."
    )


def _encloses(owner: str, units: Sequence[str]) -> bool:
    """Whether ``owner`` is the net itself, or a submodule with a unit inside."""
    return not owner or any(
        member.startswith(f"{owner}.") for unit in units for member in parse_unit(unit).members
    )


def stray_parameters(module: nn.Module, named: Iterable[str]) -> list[str]:
    """Names of the trainable parameters of ``module`` outside of the named units."""
    covered = {
        id(parameter)
        for name in named
        for part in unit_modules(module, name)
        for parameter in part.parameters()
    }
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in covered
    ]


def check_recompute(module: nn.Module, units: Sequence[str]) -> None:
    """Check that running a unit twice leaves no trace.

    Raises:
        ValueError: if a unit has running statistics, which a second forward would update again.
    """
    for member in (member for unit in units for member in parse_unit(unit).members):
        for name, child in module.get_submodule(member).named_modules(prefix=member):
            if getattr(child, "running_mean", None) is not None:
                raise ValueError(
                    f"`recompute` runs every unit twice, but {name!r} ({type(child).__name__}) "
                    "would update its running statistics twice. Set `recompute` to false, or use "
                    "a norm without running statistics."
                )


def check_cut(graphs: UnitGraphs, output: Any) -> None:
    """Check that a unit's members lie in a row, and that it gets no gradient but its credit.

    A unit that is one submodule returns only its output, which is detached. If a unit has several
    submodules, or ends at an input, the net may also use a tensor from inside it.

    Args:
        graphs: the units' graphs from a forward pass.
        output: the net's output, before credit is attached.

    Raises:
        ValueError: if a unit's output does not depend on all its members, or if another unit or the
            net's output depends on a tensor inside the unit.
    """
    inside = {name: [n for nodes in rows for n in nodes] for name, rows in graphs.inside.items()}
    if not any(inside.values()):
        return
    ends: dict[str, Any] = {f"unit {name!r}": value for name, value in graphs.outputs.items()}
    ends["the net's output"] = output
    for end, value in ends.items():
        reached = _reached(value)
        for name, nodes in inside.items():
            if end != f"unit {name!r}" and not reached.isdisjoint(nodes):
                raise ValueError(
                    f"{end} depends on tensors inside of unit {name!r} that go around its end, as "
                    "by a skip connection, so that unit would get more than its credit. Name one "
                    "submodule that contains the whole, or end the unit where the paths have met."
                )
    for name, rows in graphs.inside.items():
        reached = _reached(graphs.outputs[name])
        members = parse_unit(name).members
        for member, nodes in zip(members, rows, strict=True):
            if nodes and reached.isdisjoint(nodes):
                raise ValueError(
                    f"the output of unit {name!r} does not depend on {member!r}, so its members do "
                    "not lie in a row. Join only what runs one after the other."
                )


def check_sent(loss: Tensor, where: str) -> None:
    """Check that the backward pass of the loss reaches the tensor whose gradient is the error.

    Args:
        loss: the loss that is about to be differentiated.
        where: name of that tensor, for the message.

    Raises:
        ValueError: if the loss does not depend on that tensor, so that no unit would learn.
    """
    if not any(function_of(node) in ENTRIES for node in _reached(loss)):
        raise unreached(f"{where}, whose gradient is the error")


def unreached(what: str) -> ValueError:
    """The error of a loss that does not depend on what its gradient is to be taken at.

    Args:
        what: what that is, for the message.
    """
    return ValueError(
        f"the loss does not depend on {what}, so no unit would learn. A unit that returns several "
        "tensors, as an LSTM its outputs and its state, hands on the first one alone: use that "
        "one, or wrap the unit so that it returns the one in use."
    )


def _reached(value: Any) -> set[Any]:
    """All nodes of the graph that a tensor depends on, up to the nodes where credit enters."""
    found: set[Any] = set()
    waiting = [tensor.grad_fn for tensor in tensors_of(value)]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found.add(node)
        if function_of(node) not in ENTRIES:  # the units behind it are meant to be reached
            waiting.extend(following for following, _ in node.next_functions)
    return found

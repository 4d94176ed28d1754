"""Named parameter groups of the optimizer, and options of their own."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_credit.inspect.unit_names import unit_modules
from lit_credit.utils.short_text import choice

__all__ = [
    "check_group_options",
    "check_option_values",
    "parameter_groups",
    "warn_of_lost_rates",
    "with_group_options",
]


def parameter_groups(
    net: nn.Module,
    units: Sequence[str],
    readout: Sequence[str],
    extra: Mapping[str, Sequence[nn.Parameter]],
) -> list[dict[str, Any]]:
    """Trainable parameters in groups named "units", "readout" and "other", without empty ones.

    Args:
        net: the net.
        units: names of its units.
        readout: names of the submodules of its readout.
        extra: further groups by name, of parameters inside or outside of the net.
    """
    group_of = {
        id(parameter): group
        for group, names in (("units", units), ("readout", readout))
        for name in names
        for part in unit_modules(net, name)
        for parameter in part.parameters()
    }
    own = {id(parameter) for parameters in extra.values() for parameter in parameters}
    groups: dict[str, list[nn.Parameter]] = {"units": [], "readout": [], "other": []}
    for parameter in net.parameters():
        if parameter.requires_grad and id(parameter) not in own:
            groups[group_of.get(id(parameter), "other")].append(parameter)
    groups |= {
        name: [p for p in parameters if p.requires_grad] for name, parameters in extra.items()
    }
    return [{"params": group, "name": name} for name, group in groups.items() if group]


def with_group_options(
    groups: Sequence[Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]],
    names: Mapping[nn.Parameter, str],
) -> list[dict[str, Any]]:
    """Parameter groups with options of their own; parameters of a pattern become a new group.

    Args:
        groups: groups from :func:`parameter_groups`.
        options: options of the optimizer, by the name of a group, ``biases``, or a pattern.
        names: names of the net's parameters.

    Raises:
        ValueError: if a name is not a group and matches no trainable parameter, or if two patterns
            match one parameter.
    """
    existing = [group["name"] for group in groups]
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    moved: dict[str, dict[int, nn.Parameter]] = {}
    for key in (key for key in options if key not in existing):
        hits = _matched_parameters(key, [n for p, n in names.items() if id(p) in trained], existing)
        found = {id(p): p for p, name in names.items() if name in hits and id(p) in trained}
        twice = next((k for k, others in moved.items() if others.keys() & found.keys()), None)
        if twice is not None:
            raise ValueError(
                f"`group_options`: {key!r} and {twice!r} match the same parameter. Make the "
                "patterns disjoint."
            )
        moved[key] = found
    elsewhere = {identity for found in moved.values() for identity in found}
    split = [
        {**group, "params": [p for p in group["params"] if id(p) not in elsewhere]}
        for group in groups
    ]
    split += [{"params": list(found.values()), "name": key} for key, found in moved.items()]
    return [{**group, **options.get(group["name"], {})} for group in split if group["params"]]


def _matched_parameters(key: str, names: Sequence[str], groups: Sequence[str]) -> set[str]:
    if key == "biases":
        found = {name for name in names if name.endswith("bias")}
    else:
        found = {name for name in names if fnmatchcase(name, key)}
    if not found:
        raise ValueError(
            f"`group_options`: {key!r} is not a parameter group and matches no trainable "
            f"parameter. Choose a group ({', '.join(groups)}), 'biases', or a name or pattern of: "
            f"{choice(names, key)}."
        )
    return found


def check_option_values(options: Any) -> None:
    """Refuse options that are not numbers; torch reports them late, without the name of the group.

    Raises:
        ValueError: naming the option.
    """
    if not isinstance(options, Mapping):
        raise ValueError(
            f"`group_options` is {options!r}, expected options by the name of a group, such as "
            "{'biases': {'lr': 0.01}}."
        )
    for key, own in options.items():
        if not isinstance(own, Mapping):
            raise ValueError(
                f"`group_options[{key!r}]` is {own!r}, expected options of the optimizer by name, "
                "such as {'lr': 0.01}."
            )
        for name, value in own.items():
            numbers = value if isinstance(value, list | tuple) else [value]
            if not all(isinstance(x, int | float | Tensor | None) for x in numbers):
                raise ValueError(
                    f"`group_options[{key!r}]`: `{name}` is {value!r}, expected a number."
                )


def check_group_options(options: Mapping[str, Mapping[str, Any]], optimizer: Optimizer) -> None:
    """Refuse options that the optimizer does not have, and numbers below 0.

    torch would keep such options and not use them, and it checks only the numbers of all groups.

    Raises:
        ValueError: naming the option.
    """
    for key, own in options.items():
        unknown = [name for name in own if name not in optimizer.defaults]
        if unknown:
            raise ValueError(
                f"`group_options[{key!r}]` has {unknown[0]!r}, which is not an option of "
                f"{type(optimizer).__name__}. Choose from: "
                f"{choice(optimizer.defaults, unknown[0])}."
            )
        for name, value in own.items():
            if isinstance(value, int | float) and value < 0:
                raise ValueError(
                    f"`group_options[{key!r}]`: `{name}` is {value}, expected a number of at least "
                    "0."
                )


def warn_of_lost_rates(options: Mapping[str, Mapping[str, Any]], optimizer: Optimizer) -> None:
    """Warn of a scheduler that has replaced the learning rates of ``group_options``.

    OneCycleLR and CyclicLR set the rates of all groups to their own.
    """
    for group in optimizer.param_groups:
        rate = options.get(group.get("name", ""), {}).get("lr")
        base = group.get("initial_lr", group["lr"])
        if rate is not None and base != rate and "max_lr" in group:
            rank_zero_warn(
                f"`lr_scheduler` replaces the learning rate {rate} that `group_options` gives "
                f"{group['name']!r}. Give its `max_lr` as a list, a rate for each of the groups "
                f"{[g.get('name') for g in optimizer.param_groups]}."
            )

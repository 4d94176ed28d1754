"""Loading weights that another project has saved into a net."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lit_credit.runs.checkpoint_io import read_checkpoint
from lit_credit.utils.paths import local_path

__all__ = ["load_weights"]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SHOWN = 4


def load_weights(net: nn.Module, path: str | Path, argument: str = "path") -> None:
    """Start a net from the weights in a file of any project.

    The file holds a ``state_dict`` as ``torch.save`` writes it, bare or below the key
    ``state_dict``, ``model_state_dict`` or ``model``, or below any other key if only one holds
    tensors. A prefix that all tensors of the net have in the file, such as ``net.``, ``model.`` or
    ``module.``, is removed; tensors without this prefix are ignored. If two nets in the file fit
    equally well, such as a student and its teacher, the file is refused. Every tensor of the net
    must be in the file with its shape; a shared tensor needs one of its names. Fixed feedback
    matrices may be missing: they stay as drawn.

    Args:
        net: the net whose parameters and buffers are replaced.
        path: path of the file, which is read with ``weights_only=True``.
        argument: the argument that the path comes from, for errors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds no weights that fit, naming the tensors that do not fit, or
            the weights of several nets.

    Example:
        >>> import tempfile, torch
        >>> source, net = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> weights = {f"model.{name}": value for name, value in source.state_dict().items()}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": weights}, f"{folder}/weights.pt")
        ...     load_weights(net, f"{folder}/weights.pt")
        >>> bool((net.weight == source.weight).all())
        True
    """
    path = local_path(path, argument)
    try:
        given = _without_prefix(_tensors(read_checkpoint(path)), net.state_dict())
    except ValueError as error:
        raise ValueError(f"`{argument}`: {error}") from error
    own = net.state_dict(keep_vars=True)
    parameters = dict(net.named_parameters())
    filled = {id(own[name]) for name in given if name in own}  # by any name of a shared tensor
    missing = [n for n in own if n not in given and (n in parameters or not _is_feedback(n))]
    missing = [name for name in missing if id(own[name]) not in filled]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name} {tuple(given[name].shape)} there, {tuple(own[name].shape)} here"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    misfits = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds if names]
    if misfits:
        raise ValueError(
            f"`{argument}`: the weights in {path} do not fit {type(net).__name__}: tensors "
            f"{', '.join(misfits)}. Build the net that they were saved from."
        )
    net.load_state_dict(given, strict=False)


def _tensors(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state_dict of a file; raises ValueError if there is none, or one of several to choose."""
    for inner in (*(found.get(name) for name in _WRAPPERS), found):
        if tensors := _by_name(inner):
            return tensors
    others = {str(key): tensors for key, inner in found.items() if (tensors := _by_name(inner))}
    if len(others) == 1:
        return others.popitem()[1]
    keys = ", ".join(map(str, list(found)[:_SHOWN])) or "nothing"
    if others:
        raise ValueError(
            f"the file holds {len(others)} nets ({_some(list(others))}), and nothing says which is "
            "meant. Save the one that is meant in a file of its own."
        )
    raise ValueError(
        f"the file holds {keys}, and no tensors by name: expected a `state_dict`, bare or below "
        f"one of the keys {', '.join(_WRAPPERS)}."
    )


def _by_name(inner: Any) -> dict[str, Tensor]:
    if not isinstance(inner, Mapping):
        return {}
    return {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}


def _without_prefix(given: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors below the prefix that finds most names of the net."""
    ends = {name.rpartition(".")[2] for name in own}
    candidates = {""}
    for name in given:
        parts = name.split(".")
        if parts[-1] in ends:
            candidates |= {".".join([*parts[:n], ""]) for n in range(1, len(parts))}
    found = {prefix: _fit(given, prefix, own) for prefix in candidates}
    # Of prefixes that find equally many names, the shortest.
    best = max(sorted(candidates, key=lambda prefix: (len(prefix), prefix)), key=found.__getitem__)
    alike = sorted(prefix for prefix in candidates if found[prefix] == found[best])
    needed = sum(not _is_feedback(name) for name in own)
    if "" not in alike and len(alike) > 1 and found[best][1] >= needed:
        raise ValueError(
            f"the file holds {len(alike)} nets that fit ({_some(alike)}), and nothing says which "
            "is meant. Save the tensors of one in a file of their own."
        )
    return {name[len(best) :]: value for name, value in given.items() if name.startswith(best)}


def _fit(given: Mapping[str, Tensor], prefix: str, own: Mapping[str, Any]) -> tuple[int, int]:
    """How many names of a net are found below a prefix, and how many with the right shape."""
    names = [name for name in own if f"{prefix}{name}" in given]
    return len(names), sum(given[f"{prefix}{n}"].shape == own[n].shape for n in names)


def _is_feedback(name: str) -> bool:
    return name.endswith("feedback")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")

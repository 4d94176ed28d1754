"""Fitting the weights of another project to a net, whatever its names begin with."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lit_credit.runs.hugging_face import translated
from lit_credit.runs.renaming import renaming
from lit_credit.runs.weight_files import read_saved, tensors_of
from lit_credit.utils.private_names import CHECKPOINTED, COMPILED, SHARDED, NoticesLoading
from lit_credit.utils.short_text import choice

__all__ = ["Fitted", "copied_equal", "fitted", "load_weights", "part_of", "shapes_of"]

_WRAPPERS = frozenset({COMPILED, SHARDED, CHECKPOINTED})
"""Submodules that compilation, sharding and activation checkpointing put into names."""
_PARALLEL = frozenset({"module"})
"""... and data parallelism, whose name a net may use itself."""
_DERIVED = frozenset(
    {"inv_freq", "masked_bias", "position_ids", "cos_cached", "sin_cached", "num_batches_tracked"}
)
"""Buffers that follow from a net's arguments or only count; libraries save them or do not."""
_SHOWN = 10


@dataclass(frozen=True)
class Fitted:
    """Tensors under the names of a module.

    Args:
        tensors: ready for ``load_state_dict(tensors, strict=False)``.
        feedback: fixed feedback matrices of the module that the file lacks.
        ignored: tensors of the file that the module does not need, by their names in the file.
        kept: tensors that the file lacks, and that a module with ``strict_loading = False`` has.
    """

    tensors: dict[str, Tensor]
    feedback: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def load_weights(
    net: nn.Module, path: str | Path, argument: str = "path", *, key: str | None = None
) -> None:
    """Start a net from the weights in a file of any project.

    The file holds a ``state_dict`` as ``torch.save`` writes it, bare or below the key
    ``state_dict``, ``model_state_dict`` or ``model``, or below any other key if only one holds
    tensors; or it is a ``.safetensors`` file or a Hugging Face folder. A prefix that all tensors of
    the net have in the file, such as ``net.``, ``model.`` or ``module.``, is removed; tensors
    without this prefix are ignored. A prefix that only the net has is added. Names of wrappers,
    such as ``_orig_mod``, count on neither side. If two nets in the file fit equally well, such as
    a student and its teacher, the file is refused. Every tensor of the net must be in the file with
    its shape; a shared tensor needs one of its names. Fixed feedback matrices may be missing: they
    stay as drawn. So may buffers that follow from the net's arguments, such as causal masks and
    frequencies of rotary positions, on either side.

    Args:
        net: the net whose parameters and buffers are replaced.
        path: path of the file, which is read with ``weights_only=True``.
        argument: the argument that the path comes from, for errors.
        key: where the weights lie in the file, if there are several: dotted keys, or a prefix.

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
    saved = read_saved(path, key, argument)
    found = fitted(net, saved, str(path), argument)
    net.load_state_dict(found.tensors, strict=False)
    if found.ignored:
        names = choice(found.ignored, most=_SHOWN)
        rank_zero_info(f"{path}: {type(net).__name__} does not need {names}, which is ignored.")


def fitted(
    module: nn.Module, saved: Mapping[str, Any], source: str, argument: str = "checkpoints"
) -> Fitted:
    """Find the tensors of a module in what was read from a file; nothing is loaded.

    Args:
        module: the module. It may be a LightningModule, and the file of the bare net in it.
        saved: the contents of a file, with the tensors by name at ``state_dict``.
        source: the file, for errors.
        argument: the argument that the file comes from, for errors.

    Raises:
        ValueError: if a tensor of the module is missing or has another shape, if there are tensors
            that it does not know, or several nets that fit. The error names a prefix or renaming
            with which the file would fit, if there is one. For a model of Hugging Face, names are
            translated as Hugging Face does it.
    """
    own = tensors_of(module.state_dict(keep_vars=True))
    given = tensors_of(saved["state_dict"])
    about, troubles = f"`{argument}`: {source}", []
    for wrappers in (_WRAPPERS, _WRAPPERS | _PARALLEL, frozenset[str]()):
        taken, trouble = _taken(module, own, given, wrappers, about)
        if not trouble:
            return taken
        troubles.append(trouble)
    clean = {name: given[theirs] for name, theirs in _without(given, _WRAPPERS).items()}
    core = {n: v for n, v in clean.items() if not (_is_derived(n, v) or _is_whole(v))}
    if others := translated(module, core):
        taken, trouble = _taken(module, own, others, frozenset(), about)
        if not trouble:
            return replace(taken, ignored=[name for name in clean if name not in core])
    raise ValueError(
        f"`{argument}`: the weights in {source} do not fit {type(module).__name__}: tensors "
        f"{troubles[0]}"
    )


def copied_equal(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Load tensors, and tell whether the module held the same values before.

    Values are compared one tensor at a time, in the module's own precision and on its device.

    Args:
        module: the module.
        tensors: tensors under the module's names, of :func:`fitted`.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> same = {name: value.clone() for name, value in net.state_dict().items()}
        >>> copied_equal(net, same), copied_equal(net, {"bias": net.bias + 1})
        (True, False)
    """
    own = module.state_dict(keep_vars=True)
    with torch.no_grad():
        equal = all(_is_equal(own.get(name), value) for name, value in tensors.items())
    module.load_state_dict(tensors, strict=False)
    return equal


def part_of(saved: Mapping[str, Any], own: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of a file that have the names of ``own``, below any prefix, and their shapes.

    Args:
        saved: the contents of a file, with the tensors by name at ``state_dict``.
        own: some tensors of a net, by their names in the net.
        source: the file, for errors.

    Raises:
        ValueError: if several nets in the file have them all.
    """
    given = tensors_of(saved["state_dict"])
    clean = {name: given[theirs] for name, theirs in _without(given, _WRAPPERS).items()}
    cut, put = _prefixes(clean, own, source, len(own))
    named = {put + name[len(cut) :]: v for name, v in clean.items() if name.startswith(cut)}
    return {name: v for name, v in named.items() if name in own and _fits(v, own[name])}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes by name, which two files of one net share.

    Names have no wrappers. Feedback matrices, which may not be drawn yet, and buffers that
    libraries save or do not are left out.
    """
    names = _without(tensors, _WRAPPERS)
    if all(name.startswith("module.") for name in names):
        names = {clean.removeprefix("module."): name for clean, name in names.items()}
    named = {n: tensors[name] for n, name in names.items() if "feedback" not in n.split(".")[-2:]}
    kept = {n: v for n, v in named.items() if not (_is_feedback(n) or _is_whole(v))}
    return {n: v.shape for n, v in kept.items() if not _is_derived(n, v)}


def _taken(
    module: nn.Module,
    own: dict[str, Tensor],
    given: dict[str, Tensor],
    wrappers: frozenset[str],
    source: str,
) -> tuple[Fitted, str]:
    """The tensors that fit, and text about those that do not."""
    ours, theirs = _without(own, wrappers), _without(given, wrappers)
    parameters = {name for name, _ in module.named_parameters()}
    core = {clean: own[name] for clean, name in ours.items() if name in parameters}
    clean_own = {clean: own[name] for clean, name in ours.items()}
    clean_given = {clean: given[name] for clean, name in theirs.items()}
    # All tensors below the prefix of the parameters; a tied one once.
    prefixes = _common_prefixes(core or clean_own)
    inner = {n: v for n, v in clean_own.items() if n.startswith(prefixes[-1])}
    needed = len({id(v) for n, v in inner.items() if not (_is_feedback(n) or _is_derived(n, v))})
    cut, put = _prefixes(clean_given, inner, source, needed)
    names = {put + n[len(cut) :]: n for n in clean_given if n.startswith(cut)}
    loads = {name: child for name, child in module.named_modules() if _takes_any(child)}
    tensors, ignored, unexpected = {}, [], []
    unsaved = dict(module.named_buffers())
    for name, theirs_name in names.items():
        value, raw = clean_given[theirs_name], theirs[theirs_name]
        if name in ours:
            tensors[ours[name]] = value
        elif name.rpartition(".")[0] in loads:
            tensors[name] = value
        elif name in unsaved or _is_derived(name, value) or _is_whole(value):
            ignored.append(raw)
        else:
            unexpected.append(raw)
    ignored += [theirs[n] for n in clean_given if not n.startswith(cut)]
    filled = {id(own[name]) for name in tensors if name in own}  # by any name of a shared tensor
    missing: list[str] = []
    feedback: list[str] = []
    kept: list[str] = []
    may_lack = bool(filled) and getattr(module, "strict_loading", True) is False
    for clean, name in ours.items():
        if name in tensors or id(own[name]) in filled or not clean.startswith(put):
            continue
        if name.rpartition(".")[0] in loads or (_is_feedback(name) and name not in parameters):
            feedback.append(name)
        elif not _is_derived(name, own[name]) or name in parameters:
            (kept if may_lack else missing).append(name)
    shapes = [
        f"{name} {tuple(value.shape)} there, {tuple(own[name].shape)} here"
        for name, value in tensors.items()
        if name in own and not _fits(value, own[name]) and name.rpartition(".")[0] not in loads
    ]
    if missing or unexpected or shapes:
        only_unexpected = not (missing or shapes)
        remedy = _remedy(unexpected, only_unexpected, clean_given, clean_own)
        return Fitted({}), f"{_listed(missing, unexpected, shapes)}. {remedy}"
    return Fitted(tensors, feedback, ignored, kept), ""


def _listed(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    """The tensors that do not fit, ten of each kind at most."""
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return ", ".join(f"{len(n)} {kind} ({choice(n, most=_SHOWN)})" for kind, n in kinds if n)


def _remedy(
    unexpected: list[str],
    only_unexpected: bool,
    given: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> str:
    """What to do about tensors that do not fit."""
    if only_unexpected and all(
        "feedback" in name.split(".")[-2:][0] or _is_feedback(name) for name in unexpected
    ):
        return "They are feedback: build the net under the rule that it was trained with."
    found = renaming(given, own) if unexpected else ""
    return found or "Build the net that they were saved from."


def _prefixes(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, needed: int
) -> tuple[str, str]:
    """Find the prefix to cut from the names of a file, and the one to put before them.

    Args:
        given: tensors of the file.
        own: tensors of the net.
        source: the file, for errors.
        needed: number of names that a net must have to count as one that fits.

    Returns:
        The two prefixes, each empty or with a dot at its end.

    Raises:
        ValueError: if several nets in the file fit equally well.
    """
    below = {prefix: {n[len(prefix) :] for n in own} for prefix in _common_prefixes(own)}
    found: Counter[tuple[str, str]] = Counter()
    shaped: Counter[tuple[str, str]] = Counter()
    for name, value in given.items():
        cuts = [0, *(at + 1 for at, sign in enumerate(name) if sign == ".")]
        for cut in cuts:
            for prefix, names in below.items():
                if name[cut:] in names:
                    found[name[:cut], prefix] += 1
                    shaped[name[:cut], prefix] += _fits(value, own[prefix + name[cut:]])
    if not found:
        return "", ""
    most = max(found.values())
    fits = max(shaped[pair] for pair in found if found[pair] == most)
    alike = [pair for pair in found if (found[pair], shaped[pair]) == (most, fits)]
    best = min(alike, key=lambda pair: (len(pair[0]), pair[0], len(pair[1])))
    nets: dict[frozenset[str], str] = {}  # two pairs of prefixes may mean the same tensors
    for before, prefix in sorted(alike, key=lambda pair: len(pair[0])):
        wanted = {before + name.removeprefix(prefix) for name in own}
        nets.setdefault(frozenset(wanted & given.keys()), before)
    if best[0] and len(nets) > 1 and fits >= needed:
        prefixes = sorted(nets.values())
        raise ValueError(
            f"{source}: the file holds {len(nets)} nets that fit ({choice(prefixes, most=4)}), and "
            f"nothing says which is meant. In Python, give `key={prefixes[0].rstrip('.')!r}`; or "
            "save the tensors of one in a file of their own."
        )
    return best


def _without(tensors: Iterable[str], wrappers: frozenset[str]) -> dict[str, str]:
    """Names without wrappers, to names; unchanged where two would be the same."""
    names = list(tensors)
    clean = [".".join(part for part in n.split(".") if part not in wrappers) for n in names]
    return dict(zip(clean if len(set(clean)) == len(names) else names, names, strict=True))


def _common_prefixes(names: Iterable[str]) -> list[str]:
    """The prefixes that all names have, from the empty one to the longest."""
    owners = [name.split(".")[:-1] for name in names]
    found = [""]
    for parts in zip(*owners, strict=False):
        if len(set(parts)) > 1:
            break
        found.append(f"{found[-1]}{parts[0]}.")
    return found


def _takes_any(module: nn.Module) -> bool:
    """Whether a module takes tensors whose names and shapes it does not have yet."""
    return isinstance(module, NoticesLoading)


def _fits(given: Tensor, own: Tensor) -> bool:
    return is_lazy(own) or given.shape == own.shape


def _is_whole(value: Tensor) -> bool:
    """Whether a tensor holds integers or booleans, which no training changes by a gradient."""
    return not (value.dtype.is_floating_point or value.dtype.is_complex)


def _is_equal(own: Any, given: Tensor) -> bool:
    if not isinstance(own, Tensor) or is_lazy(own) or own.shape != given.shape:
        return False
    return torch.equal(own, given.to(own.device, own.dtype))


def _is_feedback(name: str) -> bool:
    return name.endswith("feedback")


def _is_derived(name: str, value: Tensor) -> bool:
    """Whether a tensor follows from the arguments of a net: a table, a counter, a causal mask."""
    if name.rpartition(".")[2] in _DERIVED:
        return True
    if is_lazy(value) or value.dim() != 4 or value.shape[:2] != (1, 1):
        return False
    mask = value[0, 0]
    return mask.shape[0] == mask.shape[1] > 1 and torch.equal(mask, torch.ones_like(mask).tril())

"""Labels that say how the configurations of runs differ, such as ``DFA lr=0.01``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "RULE",
    "UNSET",
    "above",
    "differing_keys",
    "find_key",
    "flat",
    "is_callback",
    "key_texts",
    "part_text",
    "refining_keys",
    "sort_key",
    "value_at",
    "value_text",
]

RULE = "model"
"""Key of the rule's class, which may also be written ``rule``."""
_LONGEST = 24
"""Characters of a value in a label."""
_MISSING = object()
UNSET = "unset"
"""What stands in a label for a key that a configuration lacks."""


def flat(node: Any) -> dict[str, Any]:
    """The values of a configuration by dotted key, without ``init_args`` and ``class_path``.

    Example:
        >>> flat({"model": {"class_path": "a.DFA", "init_args": {"lr": 0.1, "sizes": [1, 2]}}})
        {'model': 'a.DFA', 'model.lr': 0.1, 'model.sizes': [1, 2]}
    """
    return dict(_flat(node, ""))


def _flat(node: Any, at: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, list | tuple) and any(isinstance(item, dict) for item in node):
        node = {str(index): item for index, item in enumerate(node)}
    if not isinstance(node, dict) or not node:
        if at:
            yield at, node
        return
    for key, value in node.items():
        name = str(key)
        inside = name in ("init_args", "class_path") and "class_path" in node
        if inside and not value:  # without arguments
            continue
        yield from _flat(value, at if inside else f"{at}.{name}".lstrip("."))


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key, a mapping of all values below it, or :data:`UNSET`.

    Args:
        config: a flat configuration.
        key: a dotted key, or the beginning of some.

    Example:
        >>> config = {"model.groups.units.lr": 0.1, "model.width": 64}
        >>> value_at(config, "model.width"), value_at(config, "model.groups")
        (64, {'units.lr': 0.1})
    """
    if key in config:
        return config[key]
    below = {k[len(key) + 1 :]: v for k, v in config.items() if k.startswith(f"{key}.")}
    return below or UNSET


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that do not have one value in all configurations.

    Classes come first, then the arguments of the rule, then those of data and Trainer.
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    found = [key for key in keys if len({_identity(config, key) for config in configs}) > 1]
    branches = {place for key in keys for place in above(key)}
    return sorted(found, key=lambda key: (key not in branches, key.split(".")[0] != RULE))


def above(key: str) -> list[str]:
    """The beginnings of a dotted key, the shortest first.

    Example:
        >>> above("model.net.width")
        ['model', 'model.net']
    """
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _identity(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key, _MISSING)
    return "" if value is _MISSING else json.dumps(value, default=str, sort_keys=True)


def refining_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that tell configurations apart, without repetition.

    A key is left out if the keys before it make the same distinctions.

    Example:
        >>> refining_keys([{"lr": 1, "twice": 2, "bias": 0}, {"lr": 2, "twice": 4, "bias": 0}])
        ['lr']
    """
    chosen: list[str] = []
    known = [""] * len(configs)
    for key in differing_keys(configs):
        finer = [f"{old}\n{_identity(c, key)}" for old, c in zip(known, configs, strict=True)]
        if len(set(finer)) > len(set(known)):
            chosen.append(key)
            known = finer
    return chosen


def key_texts(keys: Sequence[str], among: Sequence[str] = ()) -> dict[str, str]:
    """The shortest ends of keys that are unique.

    Example:
        >>> key_texts(["model.optimizer.lr", "model.net.bias"])
        {'model.optimizer.lr': 'lr', 'model.net.bias': 'bias'}
    """
    everything = {*keys, *among}
    texts = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        texts[key] = next(
            end for end in ends
            if end == key or not any(o != key and f".{o}".endswith(f".{end}") for o in everything)
        )  # fmt: skip
    return texts


def value_text(value: Any) -> str:
    """A value of a configuration in a label: the name of a class, a short number.

    Example:
        >>> value_text("torch.optim.AdamW"), value_text(0.0010), value_text([64, 64])
        ('AdamW', '0.001', '[64,64]')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        parts = value.split(".")
        is_path = len(parts) > 1 and all(part.isidentifier() for part in parts)
        text = parts[-1] if is_path else value
    else:
        text = json.dumps(value, default=str, separators=(",", ":"))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}.."


def is_callback(key: str) -> bool:
    """Whether a key of a flat configuration says that a run has a callback."""
    return key.startswith("callbacks.") and key.count(".") == 1


def part_text(key: str, text: str, value: Any) -> str:
    """What a label says of a key: the name of a callback, or text and value.

    Example:
        >>> part_text("callbacks.EarlyStopping", "EarlyStopping", "mine.EarlyStopping")
        'EarlyStopping'
        >>> part_text("model.lr", "lr", 0.1)
        'lr=0.1'
    """
    return key.partition(".")[2] if is_callback(key) else f"{text}={value_text(value)}"


def sort_key(value: Any) -> tuple[int, float, str]:
    """None first, then numbers by size, then other values as text."""
    if value is None:
        return (-1, 0.0, "")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if is_number else (1, 0.0, value_text(value))


def find_key(key: str, configs: Sequence[Mapping[str, Any]]) -> str:
    """The whole key that a person means by a key or by its end.

    Args:
        key: such as ``lr``, ``optimizer.lr``, ``model.init_args.optimizer.init_args.lr``, ``rule``.
        configs: flat configurations.

    Raises:
        ValueError: if no configuration has the key, or several keys end so.
    """
    wanted = ".".join(p for p in key.split(".") if p not in ("init_args", "class_path"))
    wanted = RULE if wanted == "rule" else wanted
    keys = dict.fromkeys(found for config in configs for found in config)
    branches = dict.fromkeys(place for key in keys for place in above(key))
    if wanted in keys or wanted in branches:
        return wanted
    differing = differing_keys(configs)
    ending = [found for found in keys if wanted and found.endswith(f".{wanted}")]
    ending = [found for found in ending if found in differing] or ending
    if not ending:
        ending = [found for found in branches if wanted and found.endswith(f".{wanted}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ValueError(f"--by: {key!r} may be {' or '.join(ending)}. Write more of it.")
    some = ", ".join(["rule", *(found for found in differing if found != RULE)][:12])
    raise ValueError(f"--by: no run has a key {key!r}. Keys that differ: {some}.")

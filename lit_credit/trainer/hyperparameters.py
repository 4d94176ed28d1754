"""What HPARAMS of TensorBoard shows of a run: few, short names, and first what runs differ in."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any

from lightning.pytorch import LightningModule

from lit_credit.protocols import RuleProtocol, asked

__all__ = [
    "configured",
    "differing",
    "hyperparameters_of",
    "short_name",
    "summaries",
    "told_apart_by",
]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_FILLERS = ("init_args", "dict_kwargs")
_FIRST = ("rule", "seed", "optimizer/lr")
"""What runs differ in most often."""
_VARIED: ContextVar[tuple[str, ...]] = ContextVar("varied", default=())
_GIVEN: ContextVar[Mapping[str, Any]] = ContextVar("given", default=_NOTHING)
_CONFIGURED: ContextVar[Mapping[str, Any]] = ContextVar("configured", default=_NOTHING)


@contextmanager
def differing(options: Sequence[str], given: Mapping[str, Any] = _NOTHING) -> Iterator[None]:
    """Tell the run within a ``with`` block which options vary among the runs it belongs to.

    Args:
        options: dotted names of the command line, such as ``data.init_args.batch_size``.
        given: options that were given to this run, by name, with their values.
    """
    varied, values = _VARIED.set(tuple(options)), _GIVEN.set(given)
    try:
        yield
    finally:
        _VARIED.reset(varied)
        _GIVEN.reset(values)


@contextmanager
def configured(configuration: Mapping[str, Any]) -> Iterator[None]:
    """Tell the run within a ``with`` block its full configuration.

    Args:
        configuration: the options of the command line, nested as in ``config.yaml``.
    """
    token = _CONFIGURED.set(configuration)
    try:
        yield
    finally:
        _CONFIGURED.reset(token)


def told_apart_by() -> tuple[str, ...]:
    """Short names of what tells the runs apart: the options that vary, rule, seed, learning rate.

    Example:
        >>> with differing(["model.init_args.net.init_args.hidden"]):
        ...     told_apart_by()
        ('net/hidden', 'rule', 'seed', 'optimizer/lr')
    """
    return tuple(dict.fromkeys((*map(short_name, _VARIED.get()), *_FIRST)))


def short_name(option: str) -> str:
    """The name in HPARAMS of an option of the command line.

    Example:
        >>> [short_name("model.class_path"), short_name("model.init_args.net.init_args.hidden")]
        ['rule', 'net/hidden']
        >>> [short_name("data.class_path"), short_name("trainer.max_epochs")]
        ['data', 'trainer/max_epochs']
    """
    parts = [part for part in option.removesuffix("+").split(".") if part not in _FILLERS]
    if parts[-1] == "class_path" and len(parts) > 1:
        parts.pop()
    if parts == ["model"]:
        return "rule"
    return "/".join(parts[1:] if parts[0] == "model" else parts)


def hyperparameters_of(module: LightningModule) -> dict[str, str | float]:
    """Rule, seed, arguments of the rule and the data, and the number of epochs, by short names.

    A class stands for its ``class_path``. A value that is not a number is text. An argument that is
    not set is left out, unless it tells the runs apart.

    An option that varies among the runs is shown whatever it is an option of. What the module does
    not know of it comes from the configuration of the run, see :func:`configured`. An option that
    appends to a list, such as ``trainer.callbacks+``, shows what it appends.

    Args:
        module: a module attached to a Trainer.
    """
    known = asked(module, RuleProtocol.run_configuration, {})
    seed = known.get("seed_everything")
    arguments = {k: v for k, v in module.hparams.items() if not k.startswith("_")}
    found: dict[str, Any] = {"rule": type(module).__name__}
    if seed is not None:
        found["seed"] = str(seed)  # a number would be shown with decimals
    found |= _flat(arguments)
    if data := known.get("data"):
        found |= _flat({"data": data})
    if (epochs := module.trainer.max_epochs) is not None:
        found["trainer/max_epochs"] = epochs
    varied = _varied_values()
    return {k: _shown(v) for k, v in (varied | found).items() if v is not None or k in varied}


def _varied_values() -> dict[str, Any]:
    """The options that vary, by short name, with their values in this run; None if unset."""
    configuration = dict(_CONFIGURED.get())
    arguments = (configuration.pop("model", None) or {}).get("init_args") or {}
    of_run = _flat(arguments) | _flat(configuration)
    found = {}
    for option in _VARIED.get():
        name, given = short_name(option), _GIVEN.get().get(option)
        if option.endswith("+"):
            found[name] = given
        elif name not in of_run or (given is not None and _holds_mappings(of_run[name])):
            found[name] = given  # classes in a list of the configuration have all their defaults
        else:
            found[name] = of_run[name]
    return found


def _holds_mappings(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def summaries(values: Mapping[str, str | float], metrics: Sequence[str]) -> list[Any]:
    """The summaries of TensorBoard that declare hyperparameters and metrics.

    TensorBoard sorts hyperparameters by name, those that differ first, and shows the first five. It
    does not find out what differs in runs that declare their metrics, so the run says it.

    Args:
        values: hyperparameters by name.
        metrics: tags of the metrics.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    experiment, *rest = hparams(dict(values), dict.fromkeys(metrics, 0.0))  # type: ignore[no-untyped-call]
    plugin = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in told_apart_by()
    plugin.content = content.SerializeToString()
    return [experiment, *rest]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, without the levels ``class_path`` and ``init_args``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = above if key in (*_FILLERS, "class_path") else f"{above}/{key}" if above else key
        if key == "class_path":
            found[name] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping) and value:
            found |= _flat(value, name)
        else:
            found[name] = value
    return found


def _shown(value: Any) -> str | float:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return value
    while isinstance(value, partial):
        value = value.func
    if isinstance(value, Mapping) or _holds_mappings(value):
        return _in_words(value)
    if isinstance(value, list | tuple | str) or value is None:
        return str(value)
    return str(getattr(value, "__name__", type(value).__name__))


def _in_words(node: Any) -> str:
    """Classes with their arguments, such as ``EarlyStopping(patience=3)``; other values as text."""
    if isinstance(node, list | tuple):
        return f"[{', '.join(map(_in_words, node))}]"
    if not isinstance(node, Mapping) or "class_path" not in node:
        return str(node)
    arguments = {**(node.get("init_args") or {}), **(node.get("dict_kwargs") or {})}
    words = ", ".join(f"{key}={_in_words(value)}" for key, value in arguments.items())
    return str(node["class_path"]).rpartition(".")[2] + (f"({words})" if words else "")

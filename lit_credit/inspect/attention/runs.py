"""Recording what attention reads and writes in a forward pass, and amplifying what it reads."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.inspect.attention.projections import projection_names
from lit_credit.utils.compiled import submodule
from lit_credit.utils.nested import first_tensor, replace_first, tensors_of

__all__ = ["HeadRuns", "amplified", "watched_heads"]

_ONE_STREAM = "query", "key", "value"


@dataclass
class HeadRuns:
    """Tensors of one attention, with one entry per run except in ``given``.

    Attributes:
        read: the tensors that queries, keys and values are projected from, or candidates for them.
        mixed: the input of the output projection, A V of all heads side by side; empty if hidden.
        written: the output of that projection, else the output of the attention.
        returned: the output of the attention.
        given: all real or complex tables that the attention was given when it first ran.
    """

    read: list[list[Tensor]] = field(default_factory=list)
    mixed: list[Tensor] = field(default_factory=list)
    written: list[Tensor] = field(default_factory=list)
    returned: list[Tensor] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)


@contextmanager
def watched_heads(
    module: nn.Module, layers: Sequence[AttentionHeads]
) -> Iterator[dict[str, HeadRuns]]:
    """Record what every attention reads and writes inside the ``with``, in order of first runs.

    Args:
        module: the module that will be run inside.
        layers: the heads of the attentions to watch.
    """
    found: dict[str, HeadRuns] = {}
    with ExitStack() as undo:
        for layer in layers:
            _watch(module, layer, found, undo)
        yield found


def _watch(
    module: nn.Module, layer: AttentionHeads, found: dict[str, HeadRuns], undo: ExitStack
) -> None:
    attention, runs = submodule(module, layer.name), HeadRuns()
    names, width = projection_names(attention), layer.query.shape[1]
    by_name: dict[str, Tensor] = {}

    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        found.setdefault(layer.name, runs)
        by_name.clear()
        if not runs.given:
            runs.given = [x.detach() for x in tensors_of((args, kwargs)) if _is_table(x)]
        if names is None:
            runs.read.append([x.detach().clone() for x in _streams(args, kwargs, width).values()])

    def leave(_: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None:
            return
        runs.returned.append(tensor.detach().clone())
        if names is None:
            runs.written.append(runs.returned[-1])
        else:
            runs.read.append([by_name[name] for name in names[:-1] if name in by_name])

    def project(name: str) -> Any:
        def keep(_: nn.Module, args: Any, kwargs: Any) -> None:
            if (x := first_tensor((args, kwargs))) is not None:
                by_name[name] = x.detach().clone()

        return keep

    def write(_: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        if (x := first_tensor((args, kwargs))) is not None:
            runs.mixed.append(x.detach().clone())
            runs.written.append(output.detach().clone())

    handles = [
        attention.register_forward_pre_hook(enter, with_kwargs=True),
        attention.register_forward_hook(leave),
    ]
    if names is not None:
        handles += [
            submodule(attention, name).register_forward_pre_hook(project(name), with_kwargs=True)
            for name in names[:-1]
        ]
        output = submodule(attention, names[-1])
        handles.append(output.register_forward_hook(write, with_kwargs=True))
    for handle in handles:
        undo.callback(handle.remove)


def _is_table(x: Tensor) -> bool:
    return (x.is_floating_point() or x.is_complex()) and x.dim() >= 2 and x.shape[-2] > 1


def _streams(args: Any, kwargs: Mapping[str, Any], width: int) -> dict[Any, Tensor]:
    """Arguments that may be a stream, (..., width) and not a mask, by place or name."""
    given: dict[Any, Any] = dict(enumerate(args))
    given.update(kwargs)
    if all(name in given for name in _ONE_STREAM):
        given = {name: given[name] for name in _ONE_STREAM}
    found = {
        place: x
        for place, x in given.items()
        if isinstance(x, Tensor)
        and x.is_floating_point()
        and x.dim() >= 2
        and x.shape[-1] == width
        and not any(word in str(place) for word in ("mask", "position", "bias"))
    }
    return dict(list(found.items())[:3])


@contextmanager
def amplified(
    module: nn.Module,
    layers: Sequence[AttentionHeads],
    factors: Mapping[str, float],
    before: Mapping[str, HeadRuns],
) -> Iterator[None]:
    """Let attention read its real inputs times a factor, and return what it returned before.

    So every attention computes larger scores while the streams do not change.

    Args:
        module: the module that will be run inside.
        layers: the heads of the attentions.
        factors: name of an attention to its factor.
        before: what :func:`watched_heads` recorded in a forward pass of the same data.
    """
    with ExitStack() as undo:
        for layer in layers:
            if layer.name in factors:
                attention = submodule(module, layer.name)
                outputs = iter(before[layer.name].returned)
                _amplify(attention, layer.query.shape[1], factors[layer.name], undo)

                def restore(
                    _: nn.Module, args: Any, output: Any, outputs: Iterator[Tensor] = outputs
                ) -> Any:
                    earlier = next(outputs, None)
                    return None if earlier is None else replace_first(output, earlier)

                undo.callback(attention.register_forward_hook(restore).remove)
        yield


def _amplify(attention: nn.Module, width: int, factor: float, undo: ExitStack) -> None:
    def multiplied(_: nn.Module, args: Any, kwargs: Any) -> Any:
        streams = _streams(args, kwargs, width)
        larger = {id(x): factor * x for x in streams.values()}  # one tensor stays one tensor
        changed = {place: larger[id(x)] for place, x in streams.items()}
        args = tuple(changed.get(place, x) for place, x in enumerate(args))
        return args, {**kwargs, **{n: changed[n] for n in kwargs if n in changed}}

    names = projection_names(attention)
    if names is None:
        hook = attention.register_forward_pre_hook(multiplied, with_kwargs=True, prepend=True)
        undo.callback(hook.remove)
        return
    for name in names[:-1]:
        hook = submodule(attention, name).register_forward_pre_hook(
            lambda _, args: (factor * args[0], *args[1:]) if args else None, prepend=True
        )
        undo.callback(hook.remove)

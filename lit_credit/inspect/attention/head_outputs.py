"""Computing what each head of an attention adds to the stream."""

from collections.abc import Mapping, Sequence

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.inspect.attention.projections import find_output
from lit_credit.inspect.attention.recording import AttentionCall
from lit_credit.inspect.capture import Point
from lit_credit.utils.compiled import submodule

__all__ = ["head_outputs", "head_points"]

# Legend: N samples, T queries, S keys, H heads.

_CLOSE = 1e-2


def head_points(module: nn.Module, heads: AttentionHeads) -> list[Point]:
    """The points to record, besides the attention itself, for :func:`head_outputs`."""
    attention = submodule(module, heads.name)
    output = find_output(attention)
    if isinstance(attention, nn.MultiheadAttention):  # whose values are seen
        return []
    if output is None:
        return [Point(heads.name, "input"), Point(heads.name, "output")]
    return [Point(f"{heads.name}.{output}".lstrip("."), "input")]


def head_outputs(
    module: nn.Module,
    heads: AttentionHeads,
    calls: Sequence[AttentionCall],
    passed: Mapping[Point, Tensor],
) -> Tensor:
    r"""Compute each head's part of the attention's output, without the output bias.

    .. math:: y_h = A_h (x W_{V,h} + b_{V,h}) \, W_{O,h}^\top

    It is computed from the input of the output projection; else from the recorded weights A and
    values; else from A and values made of the attention's input, if these give its output.

    Args:
        module: the net.
        heads: the weights of the heads.
        calls: the recorded attention.
        passed: the tensors that passed :func:`head_points`.

    Returns:
        (H, N, T, d_model).

    Raises:
        MisconfigurationException: if the attention did not run, or ran in a way that does not show
            what its heads add.
    """
    prefix = f"{heads.name}." if heads.name else ""
    own = [c for c in calls if c.module == heads.name or c.module.startswith(prefix)]
    if not own:
        ran = ", ".join(dict.fromkeys(call.module for call in calls))
        raise MisconfigurationException(
            f"no attention was seen inside of {heads.name!r} in the forward pass, but in: {ran}. "
            "Leave it out by `units`."
        )
    points = head_points(module, heads)
    recorded = [passed[point] for point in points if point in passed and len(points) == 1]
    count, _, size = heads.value.shape
    if recorded and len(own) == 1 and recorded[0].shape[-1] == count * size:
        mixed = [torch.unflatten(recorded[0], -1, (count, size)).transpose(1, 2)]
    elif all(call.value is not None for call in own):
        mixed = [_mixed(call, count) for call in own]
    elif len(own) > 1:
        raise MisconfigurationException(
            f"{heads.name!r} computed attention {len(own)} times in one forward pass, as a layer "
            "that is used more than once does, so that what its heads add is no single tensor. "
            "Leave it out by `units`."
        )
    elif (made := _made(heads, own[0], [passed.get(point) for point in points])) is not None:
        mixed = [made]
    else:
        raise MisconfigurationException(
            f"what the heads of {heads.name!r} add does not show: neither the input of their output"
            " projection nor their values were seen. Let it compute attention by torch's "
            "scaled_dot_product_attention, or leave it out by `units`."
        )
    shapes = {tuple(m.shape) for m in mixed}
    if len(shapes) > 1 or any((shape[1], shape[3]) != (count, size) for shape in shapes):
        raise MisconfigurationException(
            f"what the heads of {heads.name!r} add does not show: attention times values has shape "
            f"{' and '.join(map(str, shapes))}, expected (N, {count}, T, {size}) of heads as read. "
            "Leave it out by `units`."
        )
    # The sum over all runs of the attention.
    total = torch.stack([m.detach() for m in mixed]).sum(0)
    return torch.einsum("nhtk,hdk->hntd", total, heads.output.to(total.dtype))


def _made(
    heads: AttentionHeads, call: AttentionCall, passed: Sequence[Tensor | None]
) -> Tensor | None:
    """A V, (N, H, T, d_head), with values made of the input; None if it gives another output."""
    if len(passed) != 2 or passed[0] is None or passed[1] is None:
        return None
    x, y, a = (t.detach().to(call.weights.dtype) for t in (*passed, call.weights) if t is not None)
    if x.dim() != 3 or a.shape[:2] != (len(x), len(heads.value)) or a.shape[-1] != x.shape[1]:
        return None
    value = torch.einsum("nsd,hdk->nhsk", x, heads.value.to(x))
    if heads.value_bias is not None:
        value = value + heads.value_bias.to(x)[:, None]
    mixed = a @ value
    made = torch.einsum("nhtk,hdk->ntd", mixed, heads.output.to(x))
    made = made if heads.output_bias is None else made + heads.output_bias.to(x)
    same = made.shape == y.shape and bool((made - y).norm() <= _CLOSE * y.norm())
    return mixed if same else None


def _mixed(call: AttentionCall, heads: int) -> Tensor:
    """A V, (N, H, T, d_head), with shared values repeated for the queries that share them."""
    value = call.value
    if value is None:
        raise RuntimeError("the values were not seen")
    # Weights were recorded in float32 or higher, whatever dtype the net computes in.
    shared = max(1, heads // value.shape[1])
    return call.weights @ value.repeat_interleave(shared, 1).to(call.weights)

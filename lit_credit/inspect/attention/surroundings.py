"""Finding the norm before an attention's projections, and the rotation after them."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_credit.inspect.attention.heads import Rope, RopeLayout
from lit_credit.protocols import LayerProtocol, RotaryProtocol, asked, offers
from lit_credit.utils.private_names import own_buffers, own_submodules

__all__ = ["find_norm_gain", "find_rope"]

# Attention and norm of blocks whose norm multiplies by its weight (Gemma's uses 1 + weight).
_NORMS = {
    "GPT2Block": ("attn", "ln_1"),
    "LlamaDecoderLayer": ("self_attn", "input_layernorm"),
    "MistralDecoderLayer": ("self_attn", "input_layernorm"),
    "Qwen2DecoderLayer": ("self_attn", "input_layernorm"),
}
_ROTARY = re.compile(r"(^|_)(rope|rotary|freqs?|cos|sin)(_|$)|inv_freq|^position_embeddings$")


def find_norm_gain(attention: nn.Module, parent: nn.Module | None) -> Tensor | None:
    """Find the gain of the norm through which an attention reads, if its parent is of a known kind.

    Known parents are an ``nn.Sequential`` with a LayerNorm or RMSNorm just before the attention,
    torch's encoder and decoder layers with ``norm_first``, and the blocks of Hugging Face's GPT-2,
    Llama, Mistral and Qwen2.
    """
    norm: Any = None
    if isinstance(parent, nn.Sequential):
        before = list(parent)[: list(parent).index(attention)]
        norm = before[-1] if before and isinstance(before[-1], nn.LayerNorm | nn.RMSNorm) else None
    elif isinstance(parent, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        # A decoder's cross-attention reads keys and values from elsewhere.
        norm = parent.norm1 if parent.norm_first and attention is parent.self_attn else None
    elif parent is not None and type(parent).__name__ in _NORMS:
        child, norm_name = _NORMS[type(parent).__name__]
        norm = getattr(parent, norm_name) if attention is getattr(parent, child) else None
    gain = getattr(norm, "weight", None)
    return gain.detach() if isinstance(gain, Tensor) and gain.ndim == 1 else None


def find_rope(attention: nn.Module, ancestors: Sequence[nn.Module]) -> Rope | None:
    """Find how an attention rotates queries and keys; None if it does not.

    Known rotations are a child ``rotary`` with ``frequencies`` and ``layout``, and Hugging Face's
    ``rotary_emb`` of the attention or a module around it. The layout of the latter is found by a
    call of the function ``rotate_half`` in the module of the attention's class.

    Args:
        attention: the attention.
        ancestors: the modules around it.

    Raises:
        ValueError: if the attention seems to rotate queries and keys in an unknown way.
    """
    own = asked(attention, LayerProtocol.rotary, None)
    known = (RotaryProtocol.frequencies, RotaryProtocol.layout)
    if isinstance(own, nn.Module) and offers(own, *known):
        rotary = cast(RotaryProtocol, own)
        return Rope(rotary.frequencies.detach(), rotary.layout)
    sign = next(_signs_of_rotation(attention), None)
    if sign is None or getattr(attention, "use_rope", None) in (False, 0):
        return None
    for place in (attention, *ancestors):
        table = getattr(place, "rotary_emb", None)
        frequencies, layout = getattr(table, "inv_freq", None), _layout(attention)
        if isinstance(frequencies, Tensor) and layout is not None:
            scale = float(getattr(table, "attention_scaling", 1.0))
            return Rope(frequencies.detach(), layout, scale)
    raise ValueError(f"it has {sign}, so it may rotate queries and keys, but how is not known")


def _signs_of_rotation(attention: nn.Module) -> Iterator[str]:
    owned = {**vars(attention), **own_submodules(attention), **own_buffers(attention)}
    for name, value in owned.items():
        if _ROTARY.search(name) and value is not None and value is not False:
            yield f"`{name}`"
    for name in inspect.signature(attention.forward).parameters:
        if _ROTARY.search(name):
            yield f"an argument `{name}` of its forward"


def _layout(attention: nn.Module) -> RopeLayout | None:
    for kind in type(attention).__mro__:
        rotate = getattr(sys.modules[kind.__module__], "rotate_half", None)
        if rotate is not None:
            turned = rotate(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
            layouts: dict[tuple[float, ...], RopeLayout] = {
                (-3.0, -4.0, 1.0, 2.0): "half",
                (-2.0, 1.0, -4.0, 3.0): "interleaved",
            }
            return layouts.get(tuple(turned))
    return None

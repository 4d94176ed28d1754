"""Reading the weights of attention heads and the embedding of any net."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads, Rope
from lit_credit.inspect.attention.projections import (
    find_projections,
    is_attention,
    split_into_heads,
)
from lit_credit.inspect.attention.recording import looks_like_attention
from lit_credit.inspect.attention.score_norms import find_score_norm
from lit_credit.inspect.attention.stacked_heads import has_stacked_heads, stacked_heads
from lit_credit.inspect.attention.surroundings import find_norm_gain, find_rope
from lit_credit.protocols import LayerProtocol, method
from lit_credit.utils.compiled import named_submodules, submodule
from lit_credit.utils.names import matched_units
from lit_credit.utils.short_text import choice

__all__ = [
    "AttentionHeads",
    "Rope",
    "attention_names",
    "find_embedding",
    "read_embedding",
    "read_heads",
]

_NO_SYMBOLS = re.compile(r"pos|wpe|type|segment|relative|bias")
_CROSS = {"multihead_attn", "encdecattention", "crossattention", "cross_attn", "encoder_attn"}
"""Last parts of the names of cross-attention, which reads keys and values from another stream."""
_MOST_LINES = 10


def read_heads(
    module: nn.Module, units: Sequence[str] | None = None, *, proved_later: bool = False
) -> list[AttentionHeads]:
    """Read the current weights of every head of every attention in a net.

    A submodule is an attention if it is one of these; the first that fits is used:

    - with a method ``head_weights()`` that returns its :class:`AttentionHeads`;
    - of class ``nn.MultiheadAttention``, without a ``kdim`` or ``vdim`` of its own;
    - with four Linears of usual names, such as q, k, v, o, or q_proj, k_proj, v_proj, o_proj;
    - with parameters W_Q, W_K, W_V of shape (H, d_model, d_head) and W_O of (H, d_head, d_model),
      as in TransformerLens;
    - with a fused Linear (or Hugging Face's Conv1D) and an output, such as c_attn, c_proj, or qkv,
      proj; the rows of the fused weight are all of q, then all of k, then all of v.

    The number of heads comes from attributes such as ``num_heads`` or ``head_dim`` of the module or
    its ``config``. Queries may share keys and values. A rotation is read from a child ``rotary``
    with ``frequencies`` and ``layout``, or from Hugging Face's ``rotary_emb``. Norms of queries and
    keys are read from submodules of usual names, such as ``q_norm``.

    Args:
        module: the net, or a LightningModule around it.
        units: names or glob patterns of attention submodules, below ``module`` or its ``net``; None
            takes all but cross-attention of usual names, such as ``multihead_attn``.
        proved_later: also read attention that norms or rotates queries and keys in an unknown way,
            with the reason in ``doubt``: :func:`prove_heads` then finds the way numerically.

    Returns:
        One entry per attention, in the order of registration. Tensors are views of the parameters
        where possible, without a graph: read them again after a step.

    Raises:
        ValueError: if a pattern matches no attention, or an attention is matched twice.
        MisconfigurationException: if there is no attention, or one cannot be read because it seems
            to norm or rotate queries and keys in an unknown way, or its sizes do not fit.

    Example:
        >>> heads = read_heads(nn.TransformerEncoderLayer(8, nhead=2))
        >>> heads[0].name, heads[0].query.shape
        ('self_attn', torch.Size([2, 8, 4]))
    """
    found = dict(_attentions(module))
    if units is None:
        found = {n: a for n, a in found.items() if not _CROSS & set(n.lower().split("."))}
    if not found:
        raise MisconfigurationException(_nothing_found(module))
    chosen = found if units is None else matched_units(units, list(found), "units")
    return [_read(module, name, found[name], proved_later) for name in found if name in chosen]


def attention_names(module: nn.Module) -> list[str]:
    """Names of all attention that :func:`read_heads` recognises, including cross-attention."""
    return [name for name, _ in _attentions(module)]


def read_embedding(module: nn.Module, name: str | None = None) -> Tensor | None:
    """Read the vectors of all symbols.

    Args:
        module: the net, or a LightningModule around it.
        name: name of the embedding, below ``module`` or its ``net``; None takes the first
            ``nn.Embedding`` whose name does not mention positions, types, segments or the like.

    Returns:
        (V, d_model), the weight itself without a graph; None if there is no such embedding.

    Raises:
        ValueError: if ``name`` is not an embedding.

    Example:
        >>> net = nn.ModuleDict({"position": nn.Embedding(16, 8), "token": nn.Embedding(65, 8)})
        >>> read_embedding(net).shape
        torch.Size([65, 8])
    """
    found = _embeddings(module)
    if name is None:
        name = find_embedding(module)
        return None if name is None else found[name].weight.detach()
    (chosen,) = matched_units([name], list(found), "name")
    return found[chosen].weight.detach()


def find_embedding(module: nn.Module) -> str | None:
    """Name of the submodule that :func:`read_embedding` takes by default; None if there is none."""
    names = _embeddings(module)
    return next((n for n in names if not _NO_SYMBOLS.search(n.rpartition(".")[2])), None)


def _embeddings(module: nn.Module) -> dict[str, nn.Embedding]:
    return {n: child for n, child in named_submodules(module) if isinstance(child, nn.Embedding)}


def _attentions(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of all attention, except attention inside another attention."""
    last: str | None = None
    for name, child in named_submodules(module):
        inside = last is not None and (last == "" or name.startswith(f"{last}."))
        if not inside and (_own(child) or has_stacked_heads(child) or is_attention(child)):
            last = name
            yield name, child


def _own(attention: nn.Module) -> Callable[[], object] | None:
    return method(attention, LayerProtocol.head_weights)


def _read(module: nn.Module, name: str, attention: nn.Module, proved_later: bool) -> AttentionHeads:
    path = name.split(".")
    ancestors = [submodule(module, ".".join(path[:i])) for i in reversed(range(len(path)))]
    try:
        heads = _heads(attention, ancestors if name else [], name)
        if heads.doubt and not proved_later:
            raise ValueError(heads.doubt)
        return heads
    except ValueError as error:
        raise MisconfigurationException(
            f"the heads of {name or 'the module itself'!r} ({type(attention).__name__}) cannot be "
            f"read: {error}. Give it a method `head_weights()` that returns "
            "`lit_credit.inspect.attention.head_weights.AttentionHeads`, or choose others by name."
        ) from error


def _heads(attention: nn.Module, ancestors: Sequence[nn.Module], name: str) -> AttentionHeads:
    """Read the heads, with the norm, rotation and score norm that are known around them.

    Raises:
        ValueError: if the heads cannot be read; the text is the reason.
    """
    if (own := _own(attention)) is not None:
        heads = own()
        if not isinstance(heads, AttentionHeads):
            raise ValueError(f"its `head_weights()` returned {type(heads).__name__}")
    else:
        stacked = has_stacked_heads(attention)
        heads = (
            stacked_heads(attention) if stacked else split_into_heads(find_projections(attention))
        )
        doubts = []
        try:
            heads = replace(heads, score_norm=find_score_norm(attention, heads))
        except ValueError as error:
            doubts.append(str(error))
        try:
            heads = replace(heads, rope=find_rope(attention, ancestors))
        except ValueError as error:
            doubts.append(str(error))
        heads = replace(heads, doubt=", and ".join(doubts))
    gain = heads.norm_gain
    if gain is None:
        gain = find_norm_gain(attention, ancestors[0] if ancestors else None)
    return replace(heads, name=name, norm_gain=gain)


def _nothing_found(module: nn.Module) -> str:
    suspects = [
        f"{name or 'the module itself'} ({type(child).__name__}: "
        f"{choice((n for n, _ in child.named_children()), longest=100)})"
        for name, child in named_submodules(module)
        if looks_like_attention(name, child)
    ]
    shown = choice(suspects, most=_MOST_LINES, separator="\n  ")
    looked = shown if suspects else "none by its class or name"
    return (
        f"no attention whose heads can be read was found in {type(module).__name__}. Submodules "
        f"that look like attention, and what is in them:\n  {looked}\n"
        "Read are nn.MultiheadAttention, four Linears of usual names (q, k, v, o; q_proj, k_proj, "
        "v_proj, o_proj; ...), parameters W_Q, W_K, W_V, W_O of (heads, in, out), and a fused "
        "Linear with an output (c_attn, c_proj; qkv, proj; ...). "
        "Give another attention a method `head_weights()` that returns "
        "`lit_credit.inspect.attention.head_weights.AttentionHeads`."
    )

"""Which attention a diagnostic looks at, and what it is called."""

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule

from lit_credit.callbacks.points import matched_units
from lit_credit.callbacks.scheduled import missing
from lit_credit.utils.attention import AttentionCall
from lit_credit.utils.names import submodule_names

__all__ = ["attention_by_label", "head_tag"]


def head_tag(index: int) -> str:
    """``H03`` for the fourth head."""
    return f"H{index:02d}"


def attention_by_label(
    callback: Callback,
    module: LightningModule,
    calls: Sequence[AttentionCall],
    units: Sequence[str] | None,
) -> dict[str, AttentionCall]:
    """The recorded attention that a diagnostic is about, by what it is called in tags.

    That is the name of the submodule, below ``net`` if all are; the second call of a submodule that
    runs several times has a number, ``attention-1``.

    Args:
        callback: the diagnostic, for the error.
        module: the module that ran.
        calls: what was recorded.
        units: names or glob patterns of the submodules to look at; None takes all.

    Raises:
        ValueError: if a pattern matches no submodule whose attention was seen, or one twice.
        MisconfigurationException: if none was seen.
    """
    names = list(dict.fromkeys(call.module for call in calls))
    if not names:
        ran = ", ".join(submodule_names(module)) or "none"
        remedy = (
            "It sees scaled_dot_product_attention and what is built on it (nn.MultiheadAttention, "
            "nn.TransformerEncoder), the softmax of a submodule that is called attention, and "
            "submodules with the attribute `returns_attention`; no fused kernels of other "
            f"libraries. Submodules: {ran}."
        )
        raise missing(callback, module, "attention that it can see", remedy)
    chosen = names if units is None else matched_units(units, names)
    below_net = all(name.startswith("net.") for name in names)
    found: dict[str, AttentionCall] = {}
    for name in chosen:
        label = name.removeprefix("net.") if below_net else name or type(module).__name__
        own = [call for call in calls if call.module == name]
        for index, call in enumerate(own):
            found[f"{label}-{index}" if index else label] = call
    return found

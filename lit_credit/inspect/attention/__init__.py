"""Recording attention during a forward pass, and reading the weights of attention heads."""

from typing import TYPE_CHECKING

from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.inspect.attention.head_weights import read_heads
    from lit_credit.inspect.attention.heads import AttentionHeads, Rope, ScoreNorm
    from lit_credit.inspect.attention.recording import AttentionCall, recorded_attention

__all__ = [
    "AttentionCall",
    "AttentionHeads",
    "Rope",
    "ScoreNorm",
    "read_heads",
    "recorded_attention",
]

if not TYPE_CHECKING:
    # They load Lightning.
    __getattr__, __dir__ = late_names(
        __name__,
        {
            "head_weights": "read_heads",
            "heads": "AttentionHeads Rope ScoreNorm",
            "recording": "AttentionCall recorded_attention",
        },
    )

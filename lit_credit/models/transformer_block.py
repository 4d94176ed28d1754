"""A pre-norm block of a transformer."""

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["TransformerBlock"]


class TransformerBlock(nn.Module):
    """Sublayers that read the normed stream and add to the stream: attention, then an MLP.

    Args:
        width: features d of the stream.
        attention: maps (N, T, d) to (N, T, d).
        hidden: units of the MLP; None leaves the MLP out.
        activation: activation of the MLP.
        dropout: probability of dropping an entry of a sublayer's output.
        norm_affine: give the norms a trainable gain and bias.
    """

    def __init__(
        self,
        width: int,
        attention: nn.Module,
        hidden: int | None,
        activation: nn.Module,
        dropout: float,
        norm_affine: bool = True,
    ) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            OrderedDict(
                norm=nn.LayerNorm(width, elementwise_affine=norm_affine),
                heads=attention,
                dropout=nn.Dropout(dropout),
            )
        )
        if hidden is not None:
            self.mlp = nn.Sequential(
                OrderedDict(
                    norm=nn.LayerNorm(width, elementwise_affine=norm_affine),
                    fc1=nn.Linear(width, hidden),
                    activation=activation,
                    fc2=nn.Linear(hidden, width),
                    dropout=nn.Dropout(dropout),
                )
            )

    def forward(self, h: Tensor) -> Tensor:
        """Map the stream (N, T, d) to the stream (N, T, d)."""
        for sublayer in self.children():
            h = h + sublayer(h)
        return h

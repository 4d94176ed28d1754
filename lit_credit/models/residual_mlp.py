"""A residual multilayer perceptron whose blocks write into one stream."""

from typing import Literal

from torch import Tensor, nn

from lit_credit.models.checks import flat_features
from lit_credit.utils.ranges import check_choice, check_parts, check_range, check_sizes

__all__ = ["ResidualBlock", "ResidualMLP"]

_NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


class ResidualBlock(nn.Module):
    """The contribution of one block to the stream: ``f(h) = W2 gelu(W1 norm(h))``.

    Args:
        width: features d of the stream.
        hidden_width: features between the two weights.
        w2_std: standard deviation of the initial entries of W2; biases start at zero.
        norm: ``layer`` or ``batch`` norm; None for no norm.
    """

    def __init__(
        self,
        width: int,
        hidden_width: int,
        w2_std: float,
        norm: Literal["layer", "batch"] | None = "layer",
    ) -> None:
        super().__init__()
        self.norm = _make_norm(norm, width)
        self.w1 = nn.Linear(width, hidden_width)
        self.w2 = nn.Linear(hidden_width, width)
        nn.init.zeros_(self.w1.bias)
        nn.init.normal_(self.w2.weight, std=w2_std)
        nn.init.zeros_(self.w2.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Map the stream (N, d) to the block's contribution (N, d)."""
        output: Tensor = self.w2(nn.functional.gelu(self.w1(self.norm(h))))
        return output


class ResidualMLP(nn.Module):
    """The net of the residual-explosion study.

    h_0 = embed(x); h_{l+1} = h_l + f_l(h_l), l = 0 .. L-1; logits = out_head(out_ln(h_L)).

    Args:
        in_features: numbers per sample; inputs are flattened to this size.
        width: features d of the stream.
        num_classes: numbers per output.
        depth: blocks L.
        hidden_width: hidden features of a block; None takes ``width``.
        residual_add: add a block's output to the stream; False replaces the stream by the output.
        w2_std: initial standard deviation of each block's last weight. Without ``residual_add``,
            0.05 keeps the signal alive.
        norm: ``layer`` or ``batch`` norm at the input of each block and of the head; None for no
            norm.

    Example:
        >>> import torch
        >>> net = ResidualMLP(in_features=64, width=32)
        >>> net(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> net.credit_units
        ['embed', 'blocks.0', 'blocks.1', 'blocks.2', 'blocks.3']

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss: Evaluating Feedback Alignment via
        Scale Stability, Reference Validity, and Depth Utility, 2026, arXiv 2606.21126.
    """

    def __init__(
        self,
        in_features: int = 3072,
        width: int = 256,
        num_classes: int = 10,
        depth: int = 4,
        hidden_width: int | None = None,
        residual_add: bool = True,
        w2_std: float = 0.01,
        norm: Literal["layer", "batch"] | None = "layer",
    ) -> None:
        super().__init__()
        check_sizes(in_features=in_features, width=width, num_classes=num_classes)
        check_sizes(hidden_width=hidden_width)
        check_parts(0, depth=depth)
        check_range(0, w2_std=w2_std)
        if norm is not None:
            check_choice(list(_NORMS), norm=norm)
        self.in_features = in_features
        self.residual_add = residual_add
        self.embed = nn.Linear(in_features, width)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, hidden_width or width, w2_std, norm) for _ in range(depth)
        )
        self.out_ln = _make_norm(norm, width)
        self.out_head = nn.Linear(width, num_classes)

    @property
    def credit_units(self) -> list[str]:
        """The submodules that receive one credit signal each, in forward order."""
        return ["embed", *(f"blocks.{index}" for index in range(len(self.blocks)))]

    @property
    def readout(self) -> list[str]:
        """The submodules after the last unit; they learn from the true gradient."""
        return ["out_ln", "out_head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are h_0 .. h_L."""
        return [*(f"blocks.{index}" for index in range(len(self.blocks))), "out_ln"]

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch (N, ...) with ``in_features`` numbers per sample to logits (N, C).

        Raises:
            ValueError: if a sample does not have ``in_features`` numbers.
        """
        h = self.embed(flat_features(x, self.in_features))  # (N, d)
        for block in self.blocks:
            h = h + block(h) if self.residual_add else block(h)
        logits: Tensor = self.out_head(self.out_ln(h))  # (N, C)
        return logits


def _make_norm(norm: str | None, width: int) -> nn.Module:
    return nn.Identity() if norm is None else _NORMS[norm](width)

"""Residual nets for images of 32 x 32 pixels."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import pad

from lit_credit.models.checks import check_images
from lit_credit.utils.ranges import check_choice, check_parts, check_sizes

__all__ = ["BasicBlock", "ResNet"]

Shortcut = Literal["A", "B"]


class BasicBlock(nn.Module):
    """A residual block: ``relu(bn2(conv2(relu(bn1(conv1(h))))) + shortcut(h))``.

    Args:
        fan_in: channels of the block's input.
        fan_out: channels of the block's output.
        stride: stride of the first convolution and of the shortcut.
        shortcut: where the shapes differ, ``A`` takes every ``stride``-th pixel and appends zero
            channels, ``B`` is a 1 x 1 convolution with a batch norm.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.stride, self.added = stride, fan_out - fan_in
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.projection: nn.Module | None = None
        if shortcut == "B" and (stride != 1 or self.added):
            self.projection = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out)
            )

    def forward(self, h: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        inner = nn.functional.relu(self.bn1(self.conv1(h)))
        output: Tensor = self.bn2(self.conv2(inner)) + self._shortcut(h)
        return nn.functional.relu(output)

    def _shortcut(self, h: Tensor) -> Tensor:
        if self.projection is not None:
            projected: Tensor = self.projection(h)
            return projected
        if self.stride != 1:
            h = h[..., :: self.stride, :: self.stride]
        return pad(h, (0, 0, 0, 0, 0, self.added)) if self.added else h


class ResNet(nn.Module):
    """The residual nets of He et al. for CIFAR-10, with 6 n + 2 layers.

    A 3 x 3 convolution, then 2 n convolutions on each of three sizes of maps (32, 16 and 8 pixels
    with 16, 32 and 64 channels), each two in a residual block; global average pooling and a linear
    head. Every convolution is followed by a batch norm. The first convolution with its norm and
    ReLU is a unit, and so is every block, so that credit enters behind the ReLU that ends it.

    Weights of convolutions are drawn from N(0, 2 / n), where n is the area of the kernel times the
    output channels (He et al. 2015, arXiv 1502.01852); the head is drawn as torch does.

    ========  ==========
    depth     parameters
    ========  ==========
    20           269,722
    32           464,154
    44           658,586
    56           853,018
    110        1,727,962
    ========  ==========

    Args:
        depth: layers with weights along a path, 6 n + 2; the paper's are 20, 32, 44, 56 and 110.
        in_channels: channels of an image.
        num_classes: numbers per output.
        width: channels of the first maps; 16 in the paper.
        shortcut: where channels are added, ``A`` has no parameters (subsampled pixels and zero
            channels, as in the paper's nets for CIFAR-10), ``B`` is a 1 x 1 convolution.

    Raises:
        ValueError: if an argument is invalid.

    Example:
        >>> import torch
        >>> net = ResNet(depth=20)
        >>> net(torch.zeros(2, 3, 32, 32)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([2, 10]), 269722)
        >>> net.credit_units[:3], len(net.credit_units)
        (['stem', 'blocks.0', 'blocks.1'], 10)

    Reference:
        He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385,
        sec. 4.2.
    """

    def __init__(
        self,
        depth: int = 20,
        in_channels: int = 3,
        num_classes: int = 10,
        width: int = 16,
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__()
        check_parts(depth=depth)
        check_sizes(in_channels=in_channels, num_classes=num_classes, width=width)
        check_choice(["A", "B"], shortcut=shortcut)
        blocks, rest = divmod(depth - 2, 6)
        if rest or not blocks:
            raise ValueError(
                f"`depth` is {depth}, expected 6 n + 2 layers: 20, 32, 44, 56 or 110, or 8 or 14 "
                "for a small net."
            )
        self.in_channels = in_channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList()
        for stage in range(3):
            fan_out = width * 2**stage
            for index in range(blocks):
                first = stage > 0 and index == 0
                fan_in, stride = (fan_out // 2, 2) if first else (fan_out, 1)
                self.blocks.append(BasicBlock(fan_in, fan_out, stride, shortcut))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def credit_units(self) -> list[str]:
        """The stem and the blocks, in forward order."""
        return ["stem", *(f"blocks.{index}" for index in range(len(self.blocks)))]

    @property
    def readout(self) -> list[str]:
        """Pooling and the head, which learn from the true gradient."""
        return ["pool", "head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are the stream."""
        return [*self.credit_units[1:], "pool"]

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K).

        Raises:
            ValueError: if the images do not have ``in_channels`` channels.
        """
        h = self.stem(check_images(x, (self.in_channels, None, None)))
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(self.pool(h))
        return logits

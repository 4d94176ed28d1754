"""A small convolutional net in the manner of LeNet-5."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from lit_credit.models.activations import Activation, make_activation
from lit_credit.models.checks import check_images
from lit_credit.utils.ranges import check_choice, check_sizes

__all__ = ["LeNet"]

_POOLING = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}
_KERNEL, _BORDERED = 5, 32


class LeNet(nn.Module):
    """Two convolutions with pooling, two hidden linear layers, and a linear head.

    ``h = pool(activation(conv(x)))`` twice, with 5 x 5 kernels, then ``h = activation(W h + b)``
    twice. Each of the four is one unit, so that credit enters behind the nonlinearity (and, in a
    convolution's unit, behind the pooling).

    With the default sizes it is LeNet-5 as it is mostly written today: images of 28 x 28 get a
    border of 2 pixels, as in the paper; the second convolution sees all six maps (the paper's sees
    10 subsets of them), pooling has no weights, and the head is linear (the paper's are radial
    basis functions of fixed codes). It has 61,706 parameters for one channel and 62,006 for three,
    in 10 classes; the paper's has about 60,000. With tanh and average pooling it is the paper's;
    ``activation: relu`` and ``pooling: max`` make the usual net of today.

    Args:
        in_channels: channels of an image: 1 for MNIST, 3 for CIFAR-10.
        image_size: height and width of an image, 28 or 32 pixels.
        channels: maps of the two convolutions.
        hidden: features of the two hidden linear layers.
        num_classes: numbers per output.
        activation: activation of the four units; see :class:`lit_credit.models.MLP`.
        pooling: ``average`` or ``max`` of each 2 x 2 square.

    Raises:
        ValueError: if an argument is invalid.

    Example:
        >>> import torch
        >>> net = LeNet()
        >>> net(torch.zeros(2, 1, 28, 28)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([2, 10]), 61706)
        >>> net.credit_units
        ['convolutions.0', 'convolutions.1', 'layers.0', 'layers.1']

    Reference:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
        Recognition", Proceedings of the IEEE 86 (1998), doi:10.1109/5.726791, sec. II.B.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: Literal[28, 32] = 28,
        channels: Sequence[int] = (6, 16),
        hidden: Sequence[int] = (120, 84),
        num_classes: int = 10,
        activation: Activation = "tanh",
        pooling: Literal["average", "max"] = "average",
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes)
        check_sizes(channels=channels)
        check_sizes(hidden=hidden)
        check_choice(list(_POOLING), pooling=pooling)
        if image_size not in (28, 32):
            raise ValueError(
                f"`image_size` is {image_size}, expected 28 (MNIST) or 32 (CIFAR-10). For images "
                "of another size take a net of torchvision, or of your own."
            )
        for name, sizes in (("channels", channels), ("hidden", hidden)):
            if len(sizes) != 2:
                raise ValueError(f"`{name}` is {list(sizes)}, expected two numbers.")
        self.in_shape = (in_channels, image_size, image_size)
        border = (_BORDERED - image_size) // 2
        first, second = channels

        def convolution(fan_in: int, fan_out: int, padding: int = 0) -> nn.Sequential:
            convolved = nn.Conv2d(fan_in, fan_out, _KERNEL, padding=padding)
            return nn.Sequential(convolved, make_activation(activation), _POOLING[pooling](2))

        self.convolutions = nn.ModuleList(
            [convolution(in_channels, first, border), convolution(first, second)]
        )
        side = 5  # 32 -> 28 -> 14 -> 10 -> 5
        wide, narrow = hidden
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(fan_in, fan_out), make_activation(activation))
            for fan_in, fan_out in ((second * side**2, wide), (wide, narrow))
        )
        self.head = nn.Linear(narrow, num_classes)

    @property
    def credit_units(self) -> list[str]:
        """Convolutions and hidden layers, in forward order."""
        return ["convolutions.0", "convolutions.1", "layers.0", "layers.1"]

    @property
    def readout(self) -> list[str]:
        """The head, which learns from the true gradient."""
        return ["head"]

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K).

        Raises:
            ValueError: if the images have another shape than the net.
        """
        h = check_images(x, self.in_shape)
        for convolution in self.convolutions:
            h = convolution(h)  # (N, 6, 14, 14), then (N, 16, 5, 5)
        h = h.flatten(1)
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(h)
        return logits

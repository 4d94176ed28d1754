"""What a layer of attention can memorize at least."""

__all__ = ["accuracy_bound", "association_bound"]


def association_bound(heads: int, head_size: int, width: int) -> int:
    r"""How many associations of contexts with symbols one layer of attention can hold at least.

    .. math:: T_0 \geq H d_h + d

    Args:
        heads: H.
        head_size: d_h, features of a head.
        width: d, features of the stream.

    Raises:
        ValueError: if an argument is below 1 (``heads`` below 0).

    Example:
        >>> association_bound(heads=20, head_size=5, width=5)
        105

    Reference:
        Dana, Pydi, Chevaleyre, "Memorization in Attention-only Transformers", 2024,
        arXiv:2411.10115.
    """
    for name, value, least in (
        ("heads", heads, 0),
        ("head_size", head_size, 1),
        ("width", width, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` is {value}, expected at least {least}.")
    return heads * head_size + width


def accuracy_bound(associations: float, contexts: int, vocab_size: int) -> float:
    r"""The accuracy that so many associations give at least, if all others are guessed.

    .. math:: \frac1N + \left(1 - \frac1N\right) \min\left(1, \frac{H d_h + d}{T_0}\right)

    Args:
        associations: H d_h + d, see :func:`association_bound`.
        contexts: T_0 of them, each as likely as the others and followed by one symbol.
        vocab_size: N symbols.

    Raises:
        ValueError: if ``contexts`` or ``vocab_size`` is below 1, or ``associations`` below 0.

    Example:
        >>> round(accuracy_bound(association_bound(31, 10, 10), contexts=2500, vocab_size=50), 4)
        0.1454

    Reference:
        Dana, Pydi, Chevaleyre, "Memorization in Attention-only Transformers", 2024,
        arXiv:2411.10115.
    """
    for name, value in (("contexts", contexts), ("vocab_size", vocab_size)):
        if value < 1:
            raise ValueError(f"`{name}` is {value}, expected at least 1.")
    if associations < 0:
        raise ValueError(f"`associations` is {associations}, expected at least 0.")
    chance = 1 / vocab_size
    return chance + (1 - chance) * min(associations / contexts, 1.0)  # NaN stays

"""Sequences drawn from a model of the next symbol."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from lit_credit.functional._shapes import check_shapes

__all__ = ["sample_tokens"]


def sample_tokens(
    logits_of: Callable[[Tensor], Tensor],
    prompt: Tensor,
    length: int,
    context: int,
    temperature: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Continue a sequence, one symbol at a time, each drawn from ``softmax(logits / temperature)``.

    Args:
        logits_of: maps symbols (1, T) to logits (1, T, V).
        prompt: symbols (P,) to start from, at least one.
        length: how many symbols to draw.
        context: most symbols that ``logits_of`` is given, the last ones.
        temperature: below 1 sharpens, above 1 flattens; 0 takes the most likely symbol.
        generator: a CPU generator; None uses the global one.

    Returns:
        The symbols drawn, without the prompt, (``length``,), on the prompt's device.

    Raises:
        ValueError: if the prompt is empty, ``length`` or the temperature negative, ``context``
            below 1, or a logit not a number.

    Example:
        >>> after = torch.eye(3).roll(1, 1) * 99  # 1 follows 0, 2 follows 1, 0 follows 2
        >>> sample_tokens(lambda x: after[x], torch.tensor([0]), length=4, context=1)
        tensor([1, 2, 0, 1])
    """
    check_shapes("(P)", prompt=prompt)
    if not len(prompt):
        raise ValueError("`prompt` is empty; give at least one symbol to start from.")
    for name, value, least in (
        ("temperature", temperature, 0),
        ("length", length, 0),
        ("context", context, 1),
    ):
        if not value >= least:
            raise ValueError(f"`{name}` is {value}, expected {least} or more.")
    symbols = prompt
    for _ in range(length):
        # Drawn on the CPU, so that a seed gives the same text on every device.
        logits = logits_of(symbols[None, -context:])[0, -1].detach().double().cpu()
        if not (logits.numel() and logits.max().isfinite()):
            raise ValueError(
                f"`logits_of` gave {logits}, of which the largest is no finite number."
            )
        if temperature == 0:
            drawn = logits.argmax(keepdim=True)
        else:
            p = torch.softmax(logits / temperature, -1)
            drawn = torch.multinomial(p, 1, generator=generator)
        symbols = torch.cat([symbols, drawn.to(symbols)])
    return symbols[len(prompt) :]

"""Finding the norm before the unembedding."""

from collections.abc import Mapping

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.inspect.attention.norm_forms import is_norm
from lit_credit.inspect.capture import Point
from lit_credit.utils.compiled import named_submodules

__all__ = ["find_final_norm", "norm_names"]


def norm_names(module: nn.Module) -> list[str]:
    """Names of the submodules that may be a norm of the last dimension, judged by class."""
    return [name for name, child in named_submodules(module) if is_norm(child)]


def find_final_norm(
    names: list[str], read: Tensor, passed: Mapping[Point, Tensor], position: int
) -> str | None:
    """Find the norm whose output the unembedding reads; None if there is none.

    The norm is found by comparing numbers, so that a net need not declare it. A dropout in eval
    mode, or the choice of one position, may stand between the norm and the unembedding.

    Args:
        names: names of all norms.
        read: what the unembedding reads, (N, d) or (N, T, d).
        passed: outputs of the norms.
        position: the position that the net picks, if it picks one.

    Raises:
        MisconfigurationException: if the net picks another position.
    """
    for name in reversed(names):
        output = passed.get(Point(name, "output"))
        if output is None:
            continue
        if output.ndim == 3 and read.ndim == 2:
            _check_position(name, output, read, position)
            output = output[:, position]
        if output.equal(read):
            return name
    return None


def _check_position(name: str, output: Tensor, read: Tensor, position: int) -> None:
    if output.shape[::2] != read.shape or output[:, position].equal(read):
        return
    picked = (output == read[:, None]).all(-1).all(0).nonzero().flatten().tolist()
    if picked:
        raise MisconfigurationException(
            f"`position` is {position}, but the unembedding reads position {picked[0]} of what "
            f"{name!r} returns, as of a class token. Set `position` to {picked[0]}."
        )

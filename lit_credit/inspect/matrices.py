"""Finding the matrices among a net's parameters by name."""

from collections.abc import Sequence

from torch import Tensor, nn

from lit_credit.utils.compiled import named_submodules, named_weights
from lit_credit.utils.names import matched_units

__all__ = ["find_unembedding", "read_matrices"]


def read_matrices(
    module: nn.Module, names: Sequence[str], argument: str = "units"
) -> dict[str, Tensor]:
    """Read the matrices that match names or patterns.

    A submodule's matrix ``weight`` has the submodule's name, such as ``head``. Any other parameter
    of two dimensions has its own name, such as ``attention.in_proj_weight``.

    Args:
        module: the net, or a LightningModule around it.
        names: names or glob patterns, below ``module`` or its ``net``.
        argument: the argument that the names come from, for the error.

    Returns:
        Name to matrix, without a graph. Names are below ``net`` if all matrices are. A parametrized
        submodule has its computed weight.

    Raises:
        ValueError: if a pattern matches nothing, or one matrix twice.

    Example:
        >>> net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10))
        >>> {name: tuple(w.shape) for name, w in read_matrices(net, ["*"]).items()}
        {'0': (10, 4), '1': (10, 4)}
    """
    found = _matrices(module)
    below_net = all(name.startswith("net.") for name in found)
    return {
        name.removeprefix("net.") if below_net else name: found[name].detach()
        for name in matched_units(names, list(found), argument)
    }


def find_unembedding(module: nn.Module, name: str | None = None) -> str | None:
    """Find the name of the ``nn.Linear`` that computes the logits.

    Args:
        module: the net, or a LightningModule around it.
        name: its name, below ``module`` or its ``net``; None takes the last ``nn.Linear``, which is
            right in most nets.

    Returns:
        The name below ``module``; None if there is no ``nn.Linear``.

    Raises:
        ValueError: if ``name`` is not an ``nn.Linear``.

    Example:
        >>> find_unembedding(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10)))
        '1'
    """
    names = [n for n, child in named_submodules(module) if isinstance(child, nn.Linear)]
    if name is not None:
        return matched_units([name], names, "unembedding")[0]
    return names[-1] if names else None


def _matrices(module: nn.Module) -> dict[str, Tensor]:
    # Duplicates included, so that a tied unembedding is found by its own name too.
    named: dict[str, Tensor] = {
        name: parameter
        for name, parameter in named_weights(module).items()
        if ".parametrizations." not in f".{name}"
    }
    for name, child in named_submodules(module):
        if isinstance(computed := getattr(child, "parametrizations", None), nn.ModuleDict):
            named |= {f"{name}.{own}".lstrip("."): getattr(child, own) for own in computed}
    return {name.removesuffix(".weight"): value for name, value in named.items() if value.ndim == 2}

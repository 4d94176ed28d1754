"""Recognizing layers that compute y = x W + b by what they compute, not by their class."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from lit_credit.inspect.state.guard import isolated
from lit_credit.utils.private_names import own_parameters, replace_own_parameters

__all__ = ["AffineForm", "affine_form"]

AffineForm = Literal["plain", "transposed"]
"""``plain``: W is (out, in), as in a Linear. ``transposed``: (in, out), as in GPT-2's Conv1D."""

_CLOSE = 1e-4
_SIZES = (1.0, 100.0)
"""Inputs of two sizes, since one size may hide a cap or an activation."""

_known: "WeakKeyDictionary[nn.Module, AffineForm | None]" = WeakKeyDictionary()


def affine_form(module: nn.Module) -> AffineForm | None:
    """The orientation of a layer's weight, proved on random numbers; None if it is not affine.

    The layer must have a ``weight`` of two dimensions, at most a ``bias``, and no other parameters.
    It runs with random inputs, weights and biases in training mode and in eval mode, without its
    hooks, and is left unchanged. The answer is kept for the life of the module.

    Args:
        module: any module.

    Example:
        >>> affine_form(nn.Linear(3, 3)), affine_form(nn.Bilinear(3, 3, 3))
        ('plain', None)
    """
    if module not in _known:
        _known[module] = _proved(module) if _may_be_affine(module) else None
    return _known[module]


def _may_be_affine(module: nn.Module) -> bool:
    own = {name: p for name, p in own_parameters(module).items() if p is not None}
    weight = own.get("weight")
    return (
        weight is not None
        and own.keys() <= {"weight", "bias"}
        and not is_lazy(weight)
        and weight.ndim == 2
        and weight.is_floating_point()
        and all(p.ndim == 1 for name, p in own.items() if name == "bias")
        and not isinstance(module, nn.Embedding | nn.EmbeddingBag)
        and not is_parametrized(module)
        and not any(True for child in module.children() for _ in child.parameters())
    )


def _proved(module: nn.Module) -> AffineForm | None:
    weight = own_parameters(module)["weight"]
    if weight is None:
        return None
    rows, columns = weight.shape
    forms: dict[AffineForm, tuple[int, int]] = {
        "plain": (columns, rows),
        "transposed": (rows, columns),
    }
    for form, (width, out) in forms.items():
        bias = own_parameters(module).get("bias")
        if (bias is None or bias.shape == (out,)) and _computes(module, form, width):
            return form
    return None


def _computes(module: nn.Module, form: AffineForm, width: int) -> bool:
    generator = torch.Generator().manual_seed(0)

    def random(like: Tensor) -> Tensor:
        device = "cpu" if like.is_meta else like.device
        return torch.randn(like.shape, generator=generator).to(device)

    own = {name: random(p) for name, p in own_parameters(module).items() if p is not None}
    weight, bias = own["weight"], own.get("bias")
    matrix = weight.T if form == "plain" else weight
    x = torch.randn(2, 3, width, generator=generator).to(weight.device)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False), _replaced(module, own):
        for training in (True, False):
            module.training = training
            for size in _SIZES:
                expected = size * x @ matrix + (0.0 if bias is None else bias)
                try:
                    y = module.forward(size * x)
                except Exception:  # it expects another input, or another device
                    return False
                if not isinstance(y, Tensor) or y.shape != expected.shape:
                    return False
                # Rounding in reduced precision, such as TF32, does not make another function.
                if not (y - expected).norm() <= _CLOSE * expected.norm() * (10 if y.is_cuda else 1):
                    return False
    return True


@contextmanager
def _replaced(module: nn.Module, own: dict[str, Tensor]) -> Iterator[None]:
    """Let a module compute with other parameters; keep its state and the random states."""
    devices = [x.device for x in own.values() if x.is_cuda][:1]
    with torch.random.fork_rng(devices), isolated(module):
        # `isolated` drops the new dict on exit.
        replace_own_parameters(module, {name: nn.Parameter(x) for name, x in own.items()})
        yield

"""Converting any nn.Module to feedback alignment."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from lit_credit.feedback.added import AddedParameters, refusal
from lit_credit.feedback.affine import affine_form
from lit_credit.feedback.attention import FeedbackMultiheadAttention
from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.layers import (
    FeedbackAffine,
    FeedbackConv1d,
    FeedbackConv2d,
    FeedbackConv3d,
    FeedbackLayer,
    FeedbackLinear,
    FeedbackTransposed,
    Recipe,
    Sign,
    feedback_class,
)
from lit_credit.feedback.matrices import draw_for, feedback_names
from lit_credit.utils.names import match_names
from lit_credit.utils.private_names import FORWARD_METHODS, AnyConvolution
from lit_credit.utils.ranges import check_choice

__all__ = ["add_feedback"]

_COUNTERPARTS: dict[type[nn.Module], type[FeedbackLayer]] = {
    nn.Linear: FeedbackLinear,
    nn.Conv1d: FeedbackConv1d,
    nn.Conv2d: FeedbackConv2d,
    nn.Conv3d: FeedbackConv3d,
    nn.MultiheadAttention: FeedbackMultiheadAttention,
}

# An embedding has no input that takes a gradient; a norm multiplies entry by entry, for any shape
# of its weight.
_EXACT_BY_NATURE = (nn.Embedding, nn.LayerNorm, nn.RMSNorm)

# Layers whose parameters are taken to multiply as matrices.
_MULTIPLIES = (
    *(nn.RNNBase, nn.RNNCellBase, nn.Bilinear, nn.Linear, nn.MultiheadAttention),
    AnyConvolution,
)


def add_feedback(
    module: nn.Module,
    *,
    distribution: Distribution = "normal",
    scale: float = 1.0,
    sign: Sign = "random",
    seed: int = 0,
    leave_exact: Sequence[str] = (),
) -> nn.Module:
    r"""Give every weight matrix below ``module`` a fixed feedback matrix, in place.

    Each Linear, Conv and MultiheadAttention computes the same output as before, and the true
    gradients of its weight and bias, but sends the error on through B in place of W:

    .. math:: \partial L / \partial x = (\partial L / \partial y) B

    So does any other layer with a ``weight`` of two dimensions that computes x W' + b or x W + b on
    random numbers, such as Hugging Face's Conv1D.

    Parameters that no layer owns keep their true backward if they are added or concatenated (class
    tokens, position embeddings, tables of biases) or multiply entry by entry. The graph of the
    first forward pass with gradients proves this; a parameter that multiplies as a matrix is
    refused there.

    Parameters keep their identity and their names. A layer gets a persistent buffer ``feedback``
    (an attention layer ``in_proj_feedback``, or ``q_proj_feedback`` and so on). Layers that share a
    weight share its B. If a module reads the weight of another one directly, as in
    ``x @ self.embedding.weight.T``, this function cannot convert that use: its backward stays
    exact.

    Args:
        module: any net.
        distribution: distribution of the entries of B; see
            :func:`lit_credit.feedback.draw_feedback`. Its fans are counted along the way of the
            error: fan_in is the fan_out of the weight.
        scale: factor on every entry of B.
        sign: ``random`` leaves B as drawn; ``weight`` gives the magnitudes of B the signs that W
            has at each forward pass. The sign-symmetric family: uSF is ``weight_std`` with
            ``weight``, ``B = std(W_0) sign(W)`` with the standard deviation of each layer's weights
            as they were when the feedback was added; frSF is ``normal`` with ``weight``, and brSF
            is frSF with :func:`lit_credit.feedback.redraw_feedback` before each batch.
        seed: seed of all matrices; each has its own stream, from the name of its weight.
        leave_exact: names or glob patterns of submodules (with all below) or parameters whose
            backward stays exact.

    Returns:
        ``module`` itself.

    Raises:
        ValueError: if a module or parameter with a matrix cannot be converted and is not in
            ``leave_exact`` (the error names all of these, and nothing is changed), if ``module``
            was converted before, or if an argument is invalid. In the first forward pass, if a
            parameter that no layer owns multiplies as a matrix.

    Example:
        >>> net = add_feedback(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))
        >>> net[2].feedback.shape
        torch.Size([2, 5])

    Reference:
        Lillicrap, Cownden, Tweed, Akerman, Random synaptic feedback weights support error
        backpropagation for deep learning, 2016, doi:10.1038/ncomms13276. Sign symmetry: Liao,
        Leibo, Poggio, How Important is Weight Symmetry in Backpropagation?, 2016,
        arXiv:1510.05067; they use sign(W) alone, whose scale their batch normalisation and
        normalised updates take out. A scale of uSF by the layer's initialization: Sanfiz, Akrout,
        Benchmarking the Accuracy and Robustness of Feedback Alignment Algorithms, 2021,
        arXiv:2108.13446.
    """
    _check(module, sign)
    exact = _left_exact(module, leave_exact)
    layers, counterparts, loose, obstacles = _survey(module, exact)
    if obstacles:
        raise ValueError(refusal(obstacles))
    recipe = Recipe(distribution, scale, sign)
    # Draw everything before changing anything. A weight has one B, even if several layers use it.
    drawn: dict[int, Tensor] = {}
    for name, layer in layers.items():
        for weight_name in feedback_names(layer):
            key = id(getattr(layer, weight_name))
            if key not in drawn:
                transposed = counterparts[name] is FeedbackTransposed
                drawn[key] = draw_for(layer, name, weight_name, recipe, seed, transposed)
    for name, layer in layers.items():
        for weight_name, buffer_name in feedback_names(layer).items():
            layer.register_buffer(buffer_name, drawn[id(getattr(layer, weight_name))])
        # Change the class, not the object, so that hooks and references stay valid. torch's own
        # lazy modules and parametrizations do the same.
        layer.__class__ = _feedback_class(type(layer), counterparts[name])
        vars(layer)["recipe"] = recipe
    if loose:
        AddedParameters(loose).register(module)
    return module


def _check(module: nn.Module, sign: str) -> None:
    check_choice(["random", "weight"], sign=sign)
    converted = [name for name, child in module.named_modules() if isinstance(child, FeedbackLayer)]
    if converted:
        raise ValueError(
            f"`module` has feedback already, first in {converted[0] or 'itself'!r}. Call "
            "`add_feedback` once, on the plain net."
        )


def _left_exact(module: nn.Module, patterns: Sequence[str]) -> set[int]:
    """The ids of all modules and parameters that keep their true backward."""
    modules = {name: child for name, child in module.named_modules(remove_duplicate=False) if name}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    exact = set()
    for name in match_names(patterns, [*modules, *parameters], "leave_exact"):
        if name in parameters:
            exact.add(id(parameters[name]))
        else:
            exact.update(map(id, modules[name].modules()))
    return exact


class _Survey(NamedTuple):
    """The parts of a net, sorted by what can be done with them."""

    layers: dict[str, nn.Module]
    """Layers to convert."""
    counterparts: dict[str, type[FeedbackLayer]]
    loose: list[str]
    """Parameters that no known layer owns."""
    obstacles: list[str]


def _survey(module: nn.Module, exact: set[int]) -> _Survey:
    found = _Survey({}, {}, [], [])
    for name, child in module.named_modules():
        if id(child) in exact or isinstance(child, _EXACT_BY_NATURE):
            continue
        kind = _kind(type(child))
        own = dict(child.named_parameters(recurse=False))
        own_forward = type(child).forward is not nn.Linear.forward
        form = affine_form(child) if kind in (None, nn.Linear) and own_forward else None
        weights = feedback_names(child) if kind or form else {}
        if any(id(own.get(weight)) in exact for weight in weights):
            continue
        if kind is None and form is not None and "forward" not in vars(child):
            found.layers[name] = child
            found.counterparts[name] = FeedbackAffine if form == "plain" else FeedbackTransposed
        elif kind is None:
            _add_loose(found, name, child, own, exact)
        elif reason := _obstacle(child, kind, own, proved=form == "plain"):
            named = name or "the module itself"
            found.obstacles.append(f"`{named}` ({_class_name(child)}: {reason})")
        else:
            found.layers[name] = child
            found.counterparts[name] = _COUNTERPARTS[kind]
    return _without_tied(module, found)


def _add_loose(
    found: _Survey, name: str, child: nn.Module, own: dict[str, nn.Parameter], exact: set[int]
) -> None:
    for parameter_name, parameter in own.items():
        if id(parameter) in exact or not (is_lazy(parameter) or parameter.ndim >= 2):
            continue
        full_name = ".".join(filter(None, (name, parameter_name)))
        differentiable = parameter.is_floating_point() or parameter.is_complex()
        if is_lazy(parameter) or not differentiable or isinstance(child, _MULTIPLIES):
            found.obstacles.append(f"`{full_name}` (a parameter of {_class_name(child)})")
        else:
            found.loose.append(full_name)


def _without_tied(module: nn.Module, found: _Survey) -> _Survey:
    """Refuse a weight with a B that another module owns too: it may be used there without B."""
    converted = {
        id(getattr(layer, weight))
        for layer in found.layers.values()
        for weight in feedback_names(layer)
    }
    for name in [n for n in found.loose if id(module.get_parameter(n)) in converted]:
        found.loose.remove(name)
        owner = module.get_submodule(name.rpartition(".")[0])
        found.obstacles.append(f"`{name}` (a parameter of {_class_name(owner)})")
    return found


def _obstacle(
    layer: nn.Module, kind: type[nn.Module], own: dict[str, nn.Parameter], proved: bool
) -> str | None:
    """The reason why a layer of a convertible kind cannot be converted, or None."""
    if any(map(is_lazy, own.values())):
        return "not initialized, run a batch through the net first"
    if is_parametrized(layer) or any(name not in own for name in feedback_names(layer)):
        return "its weight is computed from other parameters"
    if isinstance(layer, nn.Linear) and layer.weight.ndim != 2:
        return "its weight is a stack of several"
    if any(parameter.is_complex() for parameter in own.values()):
        return "its weight is complex"
    overridden = any(
        getattr(type(layer), method, None) is not getattr(kind, method, None)
        for method in FORWARD_METHODS
    )
    if (overridden and not proved) or "forward" in vars(layer):
        return "its forward is its own"
    if isinstance(layer, nn.MultiheadAttention) and layer.bias_k is not None:
        return "add_bias_kv"
    if isinstance(layer, nn.MultiheadAttention) and layer.add_zero_attn:
        return "add_zero_attn"
    return None


def _kind(cls: type[nn.Module]) -> type[nn.Module] | None:
    return next((kind for kind in _COUNTERPARTS if issubclass(cls, kind)), None)


def _feedback_class(cls: type[nn.Module], counterpart: type[FeedbackLayer]) -> type[FeedbackLayer]:
    """The counterpart of a torch class; for a derived class, one that is derived from both."""
    # The output projection of attention is a subclass of Linear that differs only in its type.
    if cls in (_kind(cls), NonDynamicallyQuantizableLinear):
        return counterpart
    return feedback_class(counterpart, cls)


def _class_name(module: nn.Module) -> str:
    return type(module).__name__

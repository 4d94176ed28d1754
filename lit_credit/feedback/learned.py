"""Feedback matrices that learn: parameters beside the weights."""

from torch import nn

from lit_credit.feedback.layers import FeedbackLayer
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.feedback.matrices import feedback_names
from lit_credit.utils.private_names import own_buffers, own_parameters

__all__ = ["feedback_parameters", "learn_feedback"]


def learn_feedback(module: nn.Module, *, follow_weight: bool = True) -> nn.Module:
    """Make every feedback matrix below ``module`` a parameter that gets its weight's gradient.

    The backward pass of a loss then also computes ``dL/dB = dL/dW``, the gradient of
    ``<B, stopgrad(dL/dW)>``. An optimizer that gives W and B the same steps and the same decay lets
    ``W - B`` shrink with the decay: the rule of Kolen and Pollack. Names and values stay the same.

    Args:
        module: a module that :func:`lit_credit.feedback.add_feedback` converted.
        follow_weight: False leaves the gradients of the feedback to the caller.

    Returns:
        ``module`` itself.

    Raises:
        ValueError: if there is no feedback, or if a feedback takes its signs from the weight.

    Example:
        >>> from lit_credit.feedback import add_feedback
        >>> net = learn_feedback(add_feedback(nn.Sequential(nn.Linear(3, 2))))
        >>> sorted(name for name, _ in net.named_parameters())
        ['0.bias', '0.feedback', '0.weight']

    Reference:
        Akrout, Wilson, Humphreys, Lillicrap, Tweed, Deep Learning without Weight Transport, 2019,
        arXiv 1904.05391, section 4; Kolen, Pollack, Backpropagation without weight transport, 1994.
    """
    layers = {n: m for n, m in module.named_modules() if isinstance(m, FeedbackLayer)}
    if not layers:
        raise ValueError("`module` has no feedback to learn: call `add_feedback` first.")
    signed = next((name for name, layer in layers.items() if layer.recipe.sign == "weight"), None)
    if signed is not None:
        raise ValueError(
            f"the feedback of {signed!r} takes its signs from the weight, so it cannot learn. Add "
            "the feedback with `sign` 'random'."
        )
    learned: dict[int, nn.Parameter] = {}
    for layer in layers.values():
        vars(layer)["follows_weight"] = follow_weight
        for name in feedback_names(layer).values():
            drawn = own_buffers(layer).pop(name)
            if drawn is None:
                continue
            # Layers that share a weight share its feedback.
            parameter = learned.setdefault(id(drawn), nn.Parameter(drawn))
            layer.register_parameter(name, parameter)
    return module


def feedback_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Every feedback matrix below ``module`` that learns, once, by the name of its parameter.

    Example:
        >>> from lit_credit.feedback import add_feedback
        >>> net = learn_feedback(add_feedback(nn.Sequential(nn.Linear(3, 2))))
        >>> list(feedback_parameters(net))
        ['0.feedback']
    """
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for prefix, part in module.named_modules():
        if isinstance(part, FeedbackLayer):
            names = list(feedback_names(part).values())
        elif isinstance(part, LazyBuffers):
            names = list(own_parameters(part))
        else:
            continue
        for name in names:
            parameter = own_parameters(part).get(name)
            if parameter is not None:
                found.setdefault(id(parameter), (f"{prefix}.{name}".lstrip("."), parameter))
    return dict(found.values())

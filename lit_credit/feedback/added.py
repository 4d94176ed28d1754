"""Parameters that no layer owns: added to activations, they need no feedback."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_credit.feedback.ops import is_feedback
from lit_credit.utils.compiled import clean_name, eager
from lit_credit.utils.late_lightning import rank_zero_info
from lit_credit.utils.nested import tensors_of
from lit_credit.utils.private_names import saved_factors
from lit_credit.utils.short_text import choice

__all__ = ["AddedParameters", "multiplied", "refusal"]

# A node of the autograd graph comes from the parameter in question alone ("own"), from other
# parameters alone ("weight"), or from activations ("activation"). Inputs without a gradient, such
# as data and constants, carry no credit and are not seen.
_Kind = Literal["own", "weight", "activation"]

_SUMS = (
    *("Add", "Sub", "Rsub", "Cat", "Stack", "Where", "Maximum", "Minimum", "Lerp", "Copy"),
    *("IndexPut", "IndexAdd", "IndexCopy", "Scatter", "ScatterAdd", "SliceScatter"),
    *("SelectScatter", "MaskedScatter", "MaskedFill"),
)
_PRODUCTS = ("Mul", "Div")
# Of these, in the order of their inputs, the ones that are added or that multiply entry by entry.
_HARMLESS = {
    "Convolution": (2,),
    "Linear": (2,),
    "Addmm": (0,),
    "Baddbmm": (0,),
    "Addbmm": (0,),
    "Addmv": (0,),
    "NativeLayerNorm": (0, 1, 2),
    "NativeGroupNorm": (0, 1, 2),
    "NativeBatchNorm": (0, 1, 2),
    "CudnnBatchNorm": (0, 1, 2),
    "FusedRmsNorm": (0, 1),
    "PreluKernel": (1,),
    "ScaledDotProductFlashAttentionForCpu": (3,),
    "ScaledDotProductEfficientAttention": (3,),
    "ScaledDotProductCudnnAttention": (3,),
}
# The place of the weight, from which an input is told.
_LAYERS = {"Mm": 1, "Addmm": 2, "Bmm": 1, "Convolution": 1, "Linear": 1}
_LOOKUPS = ("Embedding", "EmbeddingBag", "Index", "IndexSelect", "Gather")


class AddedParameters:
    """Proves that parameters are added, or multiply entry by entry, from the first forward pass on.

    A parameter that is added or concatenated to activations, as a class token, a position embedding
    or a table of relative biases, sends no credit through its value, and neither does a gain that
    multiplies entry by entry. So there is nothing that a B could replace. One that multiplies as a
    matrix would send the true gradient on without a word. The graph of the forward pass shows which
    it is. A parameter that did not run is looked for again in the next pass.

    Args:
        names: of parameters below the module whose hooks are to be registered.

    Raises:
        ValueError: out of the forward pass, if one multiplies as a matrix or in an unknown way; out
            of the backward pass, if one gets a gradient and no forward pass has shown how.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.waiting = list(names)
        self._frozen: list[str] = []
        self._undo = ExitStack()

    def register(self, module: nn.Module) -> None:
        """Look on whenever the module runs."""
        module.register_forward_pre_hook(self.enter)
        module.register_forward_hook(self.leave, always_call=True)
        for name in self.waiting:
            parameter = module.get_parameter(name)
            if parameter.requires_grad:
                parameter.register_hook(_Unseen(self, name))  # type: ignore[no-untyped-call]

    def enter(self, module: nn.Module, args: Any) -> None:
        """Let frozen ones be seen in the graph."""
        if self.waiting and _sees():
            # Compiled code shows no graph. `leave` comes after an exception too.
            self._undo = ExitStack()
            self._undo.enter_context(eager())
            parameters = {name: module.get_parameter(name) for name in self.waiting}
            self._frozen = [name for name, p in parameters.items() if not p.requires_grad]
            for name in self._frozen:
                parameters[name].requires_grad_(True)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Refuse what multiplies; say once of the others that they keep their true backward."""
        self._undo.close()
        if not self.waiting or not _sees():
            return
        parameters = {name: module.get_parameter(name) for name in self.waiting}
        found = multiplied(output, parameters) if output is not None else {}
        for name in self._frozen:
            # The graph that is there would leave them a gradient.
            parameters[name].register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]
            parameters[name].requires_grad_(False)
        self._frozen = []
        owners = {name: module.get_submodule(name.rpartition(".")[0]) for name in found}
        wrong = [
            f"`{name}` (a parameter of {type(owners[name]).__name__} that {reason})"
            for name, reason in found.items()
            if reason
        ]
        if wrong:
            raise ValueError(refusal(wrong))
        self.waiting = [name for name in self.waiting if name not in found]
        if found:
            rank_zero_info(
                "Feedback: parameters that are added, or multiply entry by entry, have no B and "
                f"keep their true backward: {choice([clean_name(name) for name in found])}."
            )


def refusal(obstacles: Sequence[str]) -> str:
    """The text of the error about weights that cannot be converted."""
    return (
        "`module` has weights that cannot have a feedback: "
        f"{choice(obstacles, separator='; ', longest=1000)}. Replace them, or list them (or the "
        "modules that own them) in `leave_exact` to keep their true backward."
    )


class _Unseen:
    """Refuses the gradient of a parameter that no forward pass has shown."""

    def __init__(self, watch: AddedParameters, name: str) -> None:
        self.watch, self.name = watch, name

    def __call__(self, gradient: Tensor) -> None:
        if self.name in self.watch.waiting:
            raise ValueError(
                f"`{self.name}` got a gradient, but the forward pass did not show whether it is "
                "added or multiplies as a matrix, as where torch.compile or a reentrant checkpoint "
                "hides it, or where parts of the net are called by themselves. List it in "
                "`leave_exact` to keep its true backward."
            )


def _forget(parameter: Tensor) -> None:
    if not parameter.requires_grad:
        parameter.grad = None


def _sees() -> bool:
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return torch.is_grad_enabled() and not tracing and not torch.compiler.is_compiling()


def multiplied(output: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """What becomes of parameters in the graph behind an output.

    Args:
        output: what a module has returned.
        parameters: by name.

    Returns:
        Of those that are in the graph the reason why they are not merely added, or "".
    """
    nodes = list(_in_order(output))
    found: dict[str, str] = {}
    for name, parameter in parameters.items():
        kinds: dict[Any, _Kind] = {}
        for node in nodes:
            if not node.next_functions:
                mine = getattr(node, "variable", None) is parameter
                kinds[node] = "own" if mine else "weight"
                if mine:
                    found.setdefault(name, "")
                continue
            inputs = [None if n is None else kinds[n] for n, _ in node.next_functions]
            if "own" in inputs and (reason := _reason(node, inputs)):
                found[name] = reason
                break
            kinds[node] = _kind(node, inputs)
    return found


def _in_order(output: Any) -> Iterator[Any]:
    """All nodes of the graph, each behind those that it comes from."""
    waiting = [(tensor.grad_fn, False) for tensor in tensors_of(output)]
    done = set()
    while waiting:
        node, ready = waiting.pop()
        if node is None or node in done:
            continue
        if ready:
            done.add(node)
            yield node
            continue
        waiting.append((node, True))
        waiting.extend((n, False) for n, _ in node.next_functions if n not in done)


def _operation(node: Any) -> str:
    """``Add`` of AddBackward0."""
    return str(node.name()).rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")


def _kind(node: Any, inputs: Sequence[_Kind | None]) -> _Kind:
    given = {kind for kind in inputs if kind is not None}
    operation = _operation(node)
    layer = is_feedback(node) or operation in _LAYERS
    if "activation" in given or layer or ("own" not in given and operation in _LOOKUPS):
        return "activation"
    return "own" if "own" in given else "weight"


def _reason(node: Any, inputs: Sequence[_Kind | None]) -> str:
    """Why a parameter that enters an operation is not merely added there, or ""."""
    given = [place for place, kind in enumerate(inputs) if kind is not None]
    mine = [place for place in given if inputs[place] == "own"]
    operation = _operation(node)
    if is_feedback(node):
        return ""  # as the input of a layer that has a B
    if operation in _LAYERS:
        weight = _LAYERS[operation]
        from_weights = len(inputs) > weight and inputs[weight] == "weight"
        harmless = (*_HARMLESS.get(operation, ()), *([weight - 1] if from_weights else []))
        return "" if set(mine) <= set(harmless) else f"multiplies as a matrix, in {node.name()}"
    if operation in _HARMLESS:
        fine = set(mine) <= set(_HARMLESS[operation])
        return "" if fine else f"multiplies as a matrix, in {node.name()}"
    if operation in _PRODUCTS:
        return _outer(node, inputs)
    two_of_slices = operation == "CopySlices" and len(given) <= 2
    if len(inputs) == 1 or len(given) == 1 or operation in _SUMS or two_of_slices:
        alone = operation in ("Mv", "Dot", "Addr", "Cdist", "Trilinear")
        return f"multiplies as a matrix, in {node.name()}" if alone else ""
    return f"enters {node.name()}, of which it is not known that it adds"


def _outer(node: Any, inputs: Sequence[_Kind | None]) -> str:
    """An entry of an activation that meets several of the parameter's is a product of matrices."""
    if "activation" not in inputs:
        return ""
    place = list(inputs).index("activation")
    both = saved_factors(node)
    if any(x is None for x in both):
        return ""
    activation, gain = both[place], both[1 - place]
    shape = torch.broadcast_shapes(activation.shape, gain.shape)  # type: ignore[no-untyped-call]
    repeated = any(
        size > 1 and gain.shape[-place] > 1 and stride == 0
        for place, (size, stride) in enumerate(
            zip(reversed(activation.shape), reversed(activation.stride()), strict=True), start=1
        )
        if place <= gain.dim()
    )
    if activation.shape != shape or repeated:
        return f"multiplies each of several copies of an activation, in {node.name()}"
    return ""

"""Parameters that no layer owns: proving that they are only added, and so need no feedback."""

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
# as data and constants, carry no credit and do not count.
_Kind = Literal["own", "weight", "activation"]

_SUMS = (
    *("Add", "Sub", "Rsub", "Cat", "Stack", "Where", "Maximum", "Minimum", "Lerp", "Copy"),
    *("IndexPut", "IndexAdd", "IndexCopy", "Scatter", "ScatterAdd", "SliceScatter"),
    *("SelectScatter", "MaskedScatter", "MaskedFill"),
)
_PRODUCTS = ("Mul", "Div")
# For each operation the places of its inputs that are added, or that multiply entry by entry.
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
# For each operation the place of the weight among its inputs.
_LAYERS = {"Mm": 1, "Addmm": 2, "Bmm": 1, "Convolution": 1, "Linear": 1}
_LOOKUPS = ("Embedding", "EmbeddingBag", "Index", "IndexSelect", "Gather")


class AddedParameters:
    """Proves in the first forward pass that parameters are added, or multiply entry by entry.

    A parameter that is added or concatenated to activations, such as a class token, a position
    embedding or a table of relative biases, has no matrix that a B could replace. Neither has a
    gain that multiplies entry by entry. A parameter that multiplies as a matrix would silently send
    the true gradient on. The graph of the forward pass shows how a parameter is used. A parameter
    that did not run is checked again in the next pass.

    Args:
        names: names of parameters below the module that is given to :meth:`register`.

    Raises:
        ValueError: in the forward pass, if a parameter multiplies as a matrix or in an unknown way;
            in the backward pass, if a parameter gets a gradient before a forward pass has shown how
            it is used.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.waiting = list(names)
        self._frozen: list[str] = []
        self._undo = ExitStack()

    def register(self, module: nn.Module) -> None:
        """Check the parameters whenever the module runs."""
        module.register_forward_pre_hook(self.enter)
        module.register_forward_hook(self.leave, always_call=True)
        for name in self.waiting:
            parameter = module.get_parameter(name)
            if parameter.requires_grad:
                parameter.register_hook(_Unseen(self, name))  # type: ignore[no-untyped-call]

    def enter(self, module: nn.Module, args: Any) -> None:
        """Make frozen parameters appear in the graph."""
        if self.waiting and _sees():
            # Compiled code does not show its graph. `leave` also runs after an exception.
            self._undo = ExitStack()
            self._undo.enter_context(eager())
            parameters = {name: module.get_parameter(name) for name in self.waiting}
            self._frozen = [name for name, p in parameters.items() if not p.requires_grad]
            for name in self._frozen:
                parameters[name].requires_grad_(True)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Refuse parameters that multiply as matrices; report once that others stay exact."""
        self._undo.close()
        if not self.waiting or not _sees():
            return
        parameters = {name: module.get_parameter(name) for name in self.waiting}
        found = multiplied(output, parameters) if output is not None else {}
        for name in self._frozen:
            # The graph of this pass would give them a gradient.
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
    """Refuses the gradient of a parameter whose use no forward pass has shown."""

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
    """Find how parameters are used in the graph of an output.

    Args:
        output: the output of a module.
        parameters: parameters by name.

    Returns:
        For each parameter in the graph the reason why it is not merely added, or "" if it is.
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
    """All nodes of the graph, each after the nodes that it depends on."""
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
    """The reason why a parameter is not merely added in an operation, or "" if it is."""
    given = [place for place, kind in enumerate(inputs) if kind is not None]
    mine = [place for place in given if inputs[place] == "own"]
    operation = _operation(node)
    if is_feedback(node):
        return ""  # the input of a layer that has a B
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
    """The reason if an activation's entry meets several entries of the parameter, or ""."""
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

"""Checking that recorded attention has the axes heads, queries and keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from lit_credit.callbacks.heads.attention import attention_by_label
from lit_credit.inspect.attention.axes import NO_OUTPUT, Answer, Asked, ask
from lit_credit.inspect.attention.recording import (
    AttentionCall,
    number_of_heads,
    recorded_attention,
)
from lit_credit.protocols import LayerProtocol, asked

__all__ = ["AttentionProof", "prove_attention"]

# Legend: N samples, H heads, T queries, S keys.

_LEAK = "axes of attention are heads, queries, keys: largest leak between queries"
_UNKNOWN = "attentions whose number of heads no attribute of the module tells"
_SINKS = "attentions some of whose keys bring nothing of the input: sinks, or parameters"
_DECLARED = "attentions taken as the module declares them"

_MOST_IN_COMMON = 0.75
_MOST_SINKS = 4


class AttentionProof(NamedTuple):
    """The result of :func:`prove_attention`.

    Attributes:
        proved: statement to number, for the first row of the history.
        sinks: by label, the first or last keys that carry nothing of the input: sinks, or keys and
            values that are parameters.
    """

    proved: dict[str, float]
    sinks: dict[str, set[int]]


def prove_attention(
    callback: Callback,
    module: LightningModule,
    run: Callable[[], Any],
    units: Sequence[str] | None,
    keys: int | None = None,
) -> AttentionProof:
    """Check numerically that the attention that a diagnostic measures is (N, H, T, S).

    - H is the number of heads that an attribute of the submodule, of a module around it, or of its
      ``config`` states.
    - A position of the submodule's output depends on a single sample and query of A, and another
      position on another one.
    - If every query looks at key s alone, two queries see the same part of the submodule's input;
      if they look at another key, they see another part.

    If a whole net is one submodule, this cannot be decided. Then attention from
    ``scaled_dot_product_attention`` or from a submodule with ``returns_attention`` is accepted.
    Costs three or four forward passes, and small backward passes inside each attention.

    Args:
        callback: the diagnostic, for errors.
        module: the module.
        run: runs the module on the probe.
        units: units of the diagnostic, see :func:`attention_by_label`.
        keys: number of keys that are positions; None takes the number of queries. If S is larger,
            the keys at both ends are checked too.

    Raises:
        ValueError: see :func:`lit_credit.callbacks.heads.attention.attention_by_label`.
        MisconfigurationException: if no attention is seen, or an attention has other axes. The
            error names the submodule, the shape, the fault, and the ``units`` that passed.
    """
    with recorded_attention(module) as calls:
        run()
    cases = [
        _Case(label, call, calls.index(call), calls, keys)
        for label, call in attention_by_label(module, calls, units).items()
    ]
    while any(case.keys for case in cases):
        asked: dict[str, tuple[_Case, Asked]] = {}
        for case in cases:
            if case.keys and case.place not in asked:
                asked[case.place] = case, Asked(case.index, case.beside, case.place, case.keys[0])
        with ask(module, [question for _, question in asked.values()]):
            run()
        for case, question in asked.values():
            case.hear(question.answer)
    problems = {case.label: problem for case in cases if (problem := case.problem(module))}
    if problems:
        raise _refused(callback, cases, problems)
    unknown = sum(case.heads(module) is None for case in cases)
    declared = sum(case.is_believed for case in cases)
    proved = {_LEAK: max((case.leak for case in cases), default=0.0)}
    proved |= {_UNKNOWN: float(unknown)} if unknown else {}
    proved |= {_DECLARED: float(declared)} if declared else {}
    with_sinks = sum(bool(case.sinks) for case in cases)
    proved |= {_SINKS: float(with_sinks)} if with_sinks else {}
    return AttentionProof(proved, {case.label: case.sinks for case in cases})


@dataclass(eq=False)
class _Case:
    """An attention that is being checked."""

    label: str
    call: AttentionCall
    index: int
    calls: Sequence[AttentionCall]
    positions: int | None
    answers: dict[int, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.place = self.call.module
        self.beside = [
            index for index, call in enumerate(self.calls) if call.module == self.call.module
        ]
        self.unseen = False
        last = self.call.weights.shape[-1] - 1
        self.keys = sorted({0, last})
        positions = self.call.weights.shape[-2] if self.positions is None else self.positions
        more = last + 1 - positions
        if 0 < more <= _MOST_SINKS:
            ends = [*range(more), *range(last + 1 - more, last + 1)]
            self.keys = sorted({*self.keys, *ends})

    def hear(self, answer: Answer | None) -> None:
        """Take the answer for the first of ``keys``; without one, ask the enclosing module next."""
        if answer is None or answer.problem == NO_OUTPUT:
            self.unseen = not self.place
            self.place = self.place.rpartition(".")[0]
            self.keys = [] if self.unseen else self.keys
            return
        self.answers[self.keys.pop(0)] = answer
        middle = self.call.weights.shape[-1] // 2
        if not self.keys and middle not in self.answers and self._brings_once():
            self.keys = [middle]

    def _brings_once(self) -> bool:
        return sum(not answer.constant for answer in self.answers.values()) == 1

    @property
    def leak(self) -> float:
        return max((answer.leak for answer in self.answers.values()), default=0.0)

    @property
    def sinks(self) -> set[int]:
        return {key for key, answer in self.answers.items() if answer.constant}

    @property
    def is_believed(self) -> bool:
        """Whether the numerical check could not decide what the axes are."""
        return self.unseen or any(answer.problem for answer in self.answers.values())

    def heads(self, module: LightningModule) -> tuple[str, int] | None:
        """Name and number of heads of the innermost module that states this number."""
        name = self.call.module
        while True:
            heads = number_of_heads(module.get_submodule(name))
            if heads is not None:
                return name or type(module).__name__, heads
            if not name:
                return None
            name = name.rpartition(".")[0]

    def problem(self, module: LightningModule) -> str | None:
        """Why A is not (N, H, T, S); None if it is."""
        heads, seen = self.heads(module), self.call.weights.shape[1]
        if heads is not None and heads[1] != seen:
            return f"its second dimension is {seen}, and {heads[0]!r} has {heads[1]} heads"
        innermost = module.get_submodule(self.call.module)
        own = asked(innermost, LayerProtocol.returns_attention, False)
        declared = self.call.query is not None or own
        if self.unseen:
            return None if declared else f"{NO_OUTPUT}, nor that of one around it"
        wrong = next((a.problem for a in self.answers.values() if a.problem), None)
        alike = self._keys_alike()
        apart = any(not a.constant and not a.reads.any() for a in self.answers.values())
        if wrong is not None:
            alone = len(self.beside) == 1 and all(a.positions for a in self.answers.values())
            return wrong if not declared or (alone and (alike or apart)) else None
        if alike:
            return "all its keys bring the same part of the input, as features do and positions not"
        if apart:
            return "one of its keys brings each query another part of the input"
        return None

    def _keys_alike(self) -> bool:
        reads = [a.reads for a in self.answers.values() if not a.constant and a.reads.any()]
        return any(_in_common(one, two) >= _MOST_IN_COMMON for one, two in combinations(reads, 2))


def _in_common(one: Tensor, two: Tensor) -> float:
    if one.shape != two.shape:
        return 0.0
    return float((one & two).sum()) / float((one | two).sum())


def _refused(
    callback: Callback, cases: Sequence[_Case], problems: dict[str, str]
) -> MisconfigurationException:
    label, problem = next(iter(problems.items()))
    case = next(case for case in cases if case.label == label)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    passed = [case.label for case in cases if case.label not in problems]
    remedy = (
        f"Set `units` to attention over positions, such as {', '.join(passed[:3])}"
        if passed
        else "Leave the callback out"
    )
    return MisconfigurationException(
        f"{type(callback).__name__}: the attention of {label!r}{more} was seen with shape "
        f"{tuple(case.call.weights.shape)}, which should be (samples, heads, queries, keys), but "
        f"{problem}. {remedy}, or compute A (N, H, T, S) in a submodule with "
        "`returns_attention = True` and `forward(scores, allowed=None)`."
    )

"""Every name that one part of lit_credit asks of a net, module, rule, task, datamodule or logger.

A Protocol lists the names that one kind of object may offer. Each name is optional and is asked by
itself, so an object need not offer a whole Protocol. A member's docstring says what it returns, who
asks, and what happens without it. docs/protocols.md has the same as tables.

Ask with :func:`asked` for an attribute, with :func:`method` for a method, and with :func:`offers`
for whether there is one. All three see what ``getattr`` sees: parameters, buffers and submodules of
an ``nn.Module``, and the names of a module that is wrapped by ``torch.compile``. The isinstance
check of a ``typing.Protocol`` does not, from Python 3.12 on.

This file imports nothing of lit_credit, and neither torch nor Lightning.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeGuard, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

__all__ = [
    "ComparedProtocol",
    "DataModuleProtocol",
    "DiagnosticProtocol",
    "FeedbackPairProtocol",
    "LayerProtocol",
    "LoaderProtocol",
    "LoggerProtocol",
    "ModuleProtocol",
    "NetProtocol",
    "RotaryProtocol",
    "RuleProtocol",
    "TaskProtocol",
    "asked",
    "is_rule",
    "member_name",
    "method",
    "offers",
]

_T = TypeVar("_T")
_D = TypeVar("_D")
_P = ParamSpec("_P")


def asked(thing: object, member: Callable[[Any], _T] | property, default: _D) -> _T | _D:
    """The value of an attribute, or a default where the thing does not have it.

    Args:
        thing: any object, also None.
        member: an attribute of a Protocol, such as ``NetProtocol.vocab_size``.
        default: stands for an attribute that is absent. One that is there and None stays None.

    Example:
        >>> from types import SimpleNamespace
        >>> asked(SimpleNamespace(vocab_size=65), NetProtocol.vocab_size, None)
        65
        >>> asked(None, NetProtocol.vocab_size, 0)
        0
    """
    found: _T | _D = getattr(thing, member_name(member), default)
    return found


def method(thing: object, member: Callable[Concatenate[Any, _P], _T]) -> Callable[_P, _T] | None:
    """The method of a thing, ready to be called; None if it has none, or one that is not callable.

    Args:
        thing: any object, also None.
        member: a method of a Protocol, such as ``ModuleProtocol.credit``.

    Example:
        >>> class Data:
        ...     def decode(self, symbols):
        ...         return "text"
        >>> method(Data(), DataModuleProtocol.decode)(None)
        'text'
        >>> method(Data(), DataModuleProtocol.encode) is None
        True
    """
    found = getattr(thing, member_name(member), None)
    return found if callable(found) else None


def offers(thing: object, *members: Callable[..., Any] | property) -> bool:
    """Whether a thing has all of some members of Protocols, whatever their values.

    Example:
        >>> offers("text", NetProtocol.vocab_size)
        False
    """
    return all(hasattr(thing, member_name(member)) for member in members)


def is_rule(module: object) -> "TypeGuard[RuleProtocol]":
    """Whether a module is a rule of lit_credit, or of others: it has a method ``surrogate``.

    Names as general as ``credit`` or ``updates_per_step`` may mean something else in a module that
    is not a rule. The other names of :class:`RuleProtocol` may be missing: ask for each.
    """
    return method(module, RuleProtocol.surrogate) is not None


def member_name(member: Any) -> str:
    """The name of a member of a Protocol.

    Example:
        >>> member_name(NetProtocol.vocab_size), member_name(DataModuleProtocol.encode)
        ('vocab_size', 'encode')
    """
    function: Any = member.fget if isinstance(member, property) else member
    name: str = function.__name__
    return name


class NetProtocol(Protocol):
    """What the net of a module may offer. Names of submodules count from the net."""

    @property
    def credit_units(self) -> Sequence[str]:
        """Names of the submodules that receive one credit signal each, in forward order.

        Several that make one unit are joined: ``fc1+act1``.

        Asked by: every rule whose ``units`` is None.
        Without it: the net has no units. Rules that need some refuse it and list the candidates.
        """

    @property
    def readout(self) -> Sequence[str]:
        """Names of the submodules after the last unit, which learn from the true gradient.

        Asked by: every rule whose ``readout`` is None.
        Without it: no submodule is the readout.
        """

    @property
    def residual_stream(self) -> Sequence[str] | None:
        """Names of the submodules whose inputs are the residual stream; None for no stream.

        Asked by: every rule, for its own ``residual_stream``.
        Without it: the rule declares no stream.
        """

    @property
    def vocab_size(self) -> int | None:
        """How many symbols the net knows; None for a net that has no symbols.

        Asked by: ``CharText``, ``Copying`` and ``NGram`` in ``setup``.
        Without it: they do not check that the net can take their symbols.
        """

    @property
    def block_size(self) -> int:
        """How many symbols of context the net takes.

        Asked by: ``NGram`` in ``setup``.
        Without it: ``NGram`` does not check that the net takes its contexts.
        """

    @property
    def layout(self) -> Any:
        """Where the digits stand: an ``AdditionLayout``.

        Asked by: ``Addition`` in ``setup``, ``AdderAnatomy``, and ``Ensemble`` of its members.
        Without it: ``Addition`` does not check the digits. ``AdderAnatomy`` refuses the net.
        """

    def parts(self) -> Any:
        """What there is to see in an adder: an ``AdderParts``.

        Asked by: ``AdderAnatomy``.
        Without it: an error in ``setup``.
        """

    def logits_with(self, tokens: "Tensor", attention: "Tensor") -> "Tensor":
        """Logits (N, R, 10) of the R places of the answer if the attention were (R, T).

        Asked by: ``AdderAnatomy``, with tokens (N, T).
        Without it: an error in ``setup``.
        """

    @property
    def seeds(self) -> "Tensor":
        """The seeds of the members of an ensemble, int64 (E,).

        Asked by: ``MemberCheckpoints``.
        Without it: an error in ``setup``.
        """

    def member_state(self, index: int) -> "Mapping[str, Tensor]":
        """The state dict of one member of an ensemble, as that of the one net.

        Asked by: ``MemberCheckpoints``; and ``AdderAnatomy``, which refuses an ensemble.
        Without it: ``MemberCheckpoints`` raises an error in ``setup``.
        """

    def clip_grad_norm_(self, max_norm: float) -> Any:
        """Scale down the gradients of the net's parts whose norm is larger, each by itself.

        Asked by: every rule with ``clip_norm``; one with ``clip_per_unit`` refuses such a net.
        Without it: ``clip_norm`` clips the gradients of all parameters together.
        """

    def relax(
        self,
        inputs: "Sequence[Any]",
        states: "Sequence[Tensor] | None",
        steps: int | None,
        force: "Callable[[list[Tensor]], Sequence[Tensor]] | None",
    ) -> "list[Tensor]":
        """The states (N, ...) of a net with an energy, after some updates.

        ``inputs`` are the positional arguments of ``forward``, ``states`` the first states, and
        ``steps`` the number of updates; None stands for those of a forward pass. At each update,
        what ``force`` returns for the states is added to ``-dE/ds``, to which states respond. It
        runs under ``torch.no_grad``, so a net that differentiates its energy here turns gradients
        on.

        Asked by: ``EquilibriumPropagation``.
        Without it: ``EquilibriumPropagation`` refuses the net.
        """

    def energy(self, inputs: "Sequence[Any]", states: "Sequence[Tensor]") -> "Tensor":
        """The energy E of each sample at some states, (N,); terms without parameters may lack.

        A unit is a submodule that runs in here, at most once.

        Asked by: ``EquilibriumPropagation``.
        Without it: ``EquilibriumPropagation`` refuses the net.
        """

    def output_of(self, states: "Sequence[Tensor]") -> "Tensor":
        """What ``forward`` returns if these are the settled states.

        Asked by: ``EquilibriumPropagation``.
        Without it: ``EquilibriumPropagation`` refuses the net.
        """


class LayerProtocol(Protocol):
    """What a submodule of a net may offer."""

    @property
    def feedback_backward(self) -> bool:
        """Whether the backward pass now takes another way than the true gradient; can be set.

        Asked by: ``exact_backward``, which sets it to False inside of its ``with``; ``MicroAdder``,
        which then calls its submodules one by one; and ``SoftmaxJacobian``, which then measures
        the exact credit beside the module's own.
        Without it: the backward pass of the submodule counts as the true one.
        """

    @feedback_backward.setter
    def feedback_backward(self, value: bool) -> None: ...

    @property
    def returns_attention(self) -> bool:
        """Whether ``forward(scores, allowed=None)`` returns attention weights A (N, H, T, S).

        Asked by: ``recorded_attention``, and the diagnostics of attention.
        Without it: A is seen in torch's attention and in softmaxes inside of attention only.
        """

    @property
    def heads_in_parallel(self) -> bool:
        """Whether the attentions directly below are one layer.

        Asked by: ``ExactDivergence``.
        Without it: a module of several attentions gets no bound.
        """

    def head_weights(self) -> Any:
        """The weights of an attention, head by head: an ``AttentionHeads``.

        Asked by: ``read_heads``.
        Without it: the projections are found by their usual names, or the attention is refused.
        """

    @property
    def rotary(self) -> "nn.Module | None":
        """The submodule of an attention that turns queries and keys: a :class:`RotaryProtocol`.

        Asked by: ``read_heads``.
        Without it: the rotation is found as Hugging Face has it. An attention that seems to rotate
        in a way that is not known is refused.
        """


class RotaryProtocol(Protocol):
    """What the submodule ``rotary`` of an attention must offer to be read."""

    @property
    def frequencies(self) -> "Tensor":
        """Radians a position of each pair of features, (pairs,).

        Asked by: ``read_heads``.
        Without it: the submodule is not read.
        """

    @property
    def layout(self) -> Any:
        """Which features are pairs: ``"interleaved"``, 2i and 2i + 1, or ``"half"``, i and i + d/2.

        Asked by: ``read_heads``.
        Without it: the submodule is not read.
        """


class FeedbackPairProtocol(Protocol):
    """A feedback matrix, and the weight that it stands for; both of one shape."""

    @property
    def feedback(self) -> "Tensor":
        """B as the error meets it, signs included.

        Asked by: ``WeightAlignment``.
        Without it: AttributeError.
        """

    @property
    def weight(self) -> "Tensor | None":
        """W, or None where B stands for no single weight.

        Asked by: ``WeightAlignment``, which leaves out pairs without a weight.
        Without it: AttributeError.
        """


class ModuleProtocol(Protocol):
    """What any LightningModule may offer. Names of submodules count from the module."""

    @property
    def net(self) -> "nn.Module":
        """The network that is trained.

        Asked by: ``CharText``, ``Copying``, ``NGram``, ``Addition`` and ``MemberCheckpoints``.
        Without it: datamodules do not check that it fits. ``MemberCheckpoints`` raises an error.
        """

    @property
    def task(self) -> "TaskProtocol":
        """What a batch means.

        Asked by: ``HeadAttribution`` and ``LayerProbes``.
        Without it: the target is that of the batch: see :meth:`TaskProtocol.target`.
        """

    def batch_loss(self, batch: Any) -> "Tensor":
        """The training loss on a batch, a scalar; a submodule of this name is not asked.

        Asked by: every diagnostic of a loss that was not given a ``loss``, and ``FiniteGuard``.
        Without it: the diagnostic runs ``training_step`` in automatic optimization, and refuses a
        module that optimizes manually.
        """

    def run_batch(self, batch: Any) -> Any:
        """Run the module on a batch, as diagnostics that need no loss want it.

        Asked by: the diagnostics of activations and attention that were not given a ``loss``.
        Without it: the training loss is computed, see :meth:`batch_loss`.
        """

    @property
    def credit_units(self) -> Sequence[str]:
        """Names of the submodules that receive one credit signal each, in forward order.

        Asked by: the diagnostics of units whose ``units`` is None, and ``FiniteGuard``.
        Without it: ``units`` must be given. An error in ``setup`` lists the candidates. Diagnostics
        of the residual stream take the only stack of blocks, if there is one.
        """

    @property
    def residual_stream(self) -> Sequence[str] | None:
        """Names of the submodules whose inputs are the residual stream; None for no stream.

        Asked by: ``ResidualNorms``, ``GradientNorms``, ``ScaleStability`` and
        ``ReferenceValidity`` whose ``units`` is None; ``LayerProbes`` and ``Representations`` with
        ``read="stream"``.
        Without it: the stream is the input of every unit and the output of the last.
        """

    def credit(self, batch: Any) -> "Mapping[str, Tensor]":
        """The credit (N, ...) that the output of each unit that ran receives, by the unit's name.

        It is empty if the rule credits parameters, not units.

        Asked by: ``CreditAlignment``, ``CreditFunction`` and ``SignalRank``; ``FiniteGuard``, of
        rules only; and ``WeightAlignment``, which calls it once where no matrix is drawn yet.
        Without it: ``CreditAlignment`` compares updates alone, or raises an error in ``setup``;
        ``CreditFunction`` and ``SignalRank`` take the gradient of the module's own backward.
        """

    def feedback_matrices(self) -> "Mapping[str, FeedbackPairProtocol] | None":
        """The fixed matrices by name, each with the weight that it stands for; None for none.

        Matrices that are drawn at their first use are not in it before.

        Asked by: ``WeightAlignment``.
        Without it: an error in ``setup``.
        """


class RuleProtocol(Protocol):
    """What a rule offers beside the names of :class:`ModuleProtocol`."""

    def surrogate(self, batch: Any) -> "tuple[Tensor, Tensor]":
        """The loss, and the scalar whose gradient is the rule's update; it makes a module a rule.

        It may run the net several times first; what those passes find enters the scalar without
        their graphs.

        Asked by: :func:`is_rule`, and the diagnostics of updates and of the module's own credit.
        Without it: the update is the gradient of the loss.
        """

    def extra_parameters(self) -> "Mapping[str, Sequence[nn.Parameter]]":
        """Parameters that the loss of the net does not reach, by their group: ``feedback``, heads.

        Asked by: ``CreditAlignment`` and ``SignalRank``, which leave their updates out.
        Without it: the updates of all parameters are compared.
        """

    @property
    def exact_credit(self) -> bool:
        """Whether the rule's credit is the gradient that the net's backward pass computes.

        Asked by: ``SoftmaxJacobian``, of rules only.
        Without it: the exact credit is measured beside the rule's own.
        """

    @property
    def updates_per_step(self) -> int:
        """Updates k in a training step.

        Asked by: our datamodules, which hand out k batches at a time; ``FiniteGuard`` and
        ``SpacedCheckpoints``, of rules.
        Without it: 1.
        """

    @property
    def lr_interval(self) -> str:
        """When a rule steps its scheduler: ``"epoch"`` or ``"step"``.

        Asked by: the check that a watched number is measured before it is watched.
        Without it: the interval that Lightning has for the scheduler.
        """

    @property
    def run_configuration(self) -> Mapping[str, Any]:
        """What the command line adds to the configuration in checkpoints, as plain data.

        Asked by: the comparison of a resumed run with its checkpoint.
        Without it: nothing is added.
        """


class TaskProtocol(Protocol):
    """What the task of a module may offer to diagnostics. Rules need a whole ``Task``."""

    def target(self, batch: Any) -> Any:
        """The correct symbols of a batch, (N,) or (N, T); below 0 where there is none.

        Asked by: ``HeadAttribution``; and ``LayerProbes``, for which it may be other numbers.
        Without it: ``target``, ``labels``, ``label`` or ``y`` of a mapping, and the second item of
        a sequence; else an error.
        """


class DataModuleProtocol(Protocol):
    """What a datamodule may offer."""

    def contexts(self) -> "tuple[Tensor, Tensor, Tensor]":
        """All contexts: inputs x (M, ...), their prior (M,), and the true rows (M, V) after them.

        Asked by: ``ContextDiagnostic`` and all that derive from it, and ``SubspaceDistance``.
        Without it: an error in ``setup`` where contexts are needed.
        """

    def encode(self, text: str) -> "Tensor":
        """The symbols of a text, int64 (T,).

        Asked by: ``TextSamples``.
        Without it: an error in ``setup``.
        """

    def decode(self, symbols: "Tensor") -> str:
        """The text of symbols (T,).

        Asked by: ``TextSamples``.
        Without it: an error in ``setup``.
        """

    @property
    def block_size(self) -> int:
        """The most symbols that the module is given.

        Asked by: ``TextSamples`` whose ``context`` is None.
        Without it: an error in ``setup``.
        """

    @property
    def has_test_data(self) -> bool:
        """Whether it has data for testing that it does not validate on.

        Asked by: ``lit-credit fit``, which tests at its end.
        Without it: whether it has a ``test_dataloader`` of its own, and does not say that it
        validates on test data.
        """

    @property
    def validates_on_test_data(self) -> bool:
        """Whether its validation data are test data, by which nothing may be selected.

        Asked by: every rule, which warns of callbacks and schedulers that watch ``val/...`` then;
        ``lit-credit fit``, which does not test again.
        Without it: False.
        """

    @property
    def earlier_arguments(self) -> "Mapping[str, Any]":
        """What its class did before it had some arguments, as values of these arguments.

        Asked by: the command line and rules, of the class that a configuration of an earlier
        version names.
        Without it: an argument that the configuration lacks has its default.
        """


class LoaderProtocol(Protocol):
    """What a loader may offer."""

    @property
    def rows_first(self) -> bool:
        """Whether every tensor of a batch has one entry a row.

        Asked by: the probe of a diagnostic.
        Without it: the probe finds out what the rows are, or takes one whole batch.
        """

    @property
    def world_size(self) -> int:
        """How many processes share a batch of ``batch_size`` rows.

        Asked by: the probe of a diagnostic, for how many rows pass at once.
        Without it: 1.
        """


class DiagnosticProtocol(Protocol):
    """What a callback that measures may offer."""

    @property
    def tag_prefix(self) -> str:
        """What its tags begin with, before a slash.

        Asked by: ``MetricHistory``, ``sweep``, and the check of what a scheduler or checkpoint
        monitors.
        Without it: none of the numbers counts as measured by the callback.
        """

    @property
    def history(self) -> Any:
        """The rows that it has measured: a ``History``.

        Asked by: ``sweep``, for the last values of a run.
        Without it: the callback brings no column.
        """

    @property
    def loss(self) -> Any:
        """A function of (module, batch) that gives a scalar, or None.

        Asked by: ``check_diagnostic``, which then makes one with a ``loss``.
        Without it: the diagnostic is made without a ``loss``.
        """


class ComparedProtocol(Protocol):
    """What the class of a task, diagnostic or rule may declare; ``compare`` makes no instance."""

    @property
    def name(self) -> str:
        """Stem of the files of a diagnostic, of its history too.

        Asked by: ``compare``, of callbacks.
        Without it: no quantity of the class is shown.
        """

    @property
    def section(self) -> str:
        """What the tags of a diagnostic begin with.

        Asked by: ``compare``, of callbacks.
        Without it: no quantity of the class is shown.
        """

    @property
    def headline(self) -> Sequence[Any]:
        """The quantities by which runs are compared: a tuple or list of ``Headline``.

        Asked by: ``compare``, of tasks and callbacks.
        Without it: no quantity of the class is shown.
        """

    @property
    def comparison_figures(self) -> Sequence[Any]:
        """Figures of several runs: a tuple or list of ``ComparisonFigure``.

        Asked by: ``compare``, of tasks and callbacks.
        Without it: the class has no figure of several runs.
        """

    @property
    def acts_on_training(self) -> bool:
        """Whether a callback changes what is trained, or for how long.

        Asked by: ``compare``, of callbacks that are neither of lit_credit nor of Lightning.
        Without it: it acts, unless its class is a ``Diagnostic`` or another class that watches.
        """

    @property
    def look(self) -> Any:
        """Place and colour of a rule: a ``Look``; a subclass does not inherit it.

        Asked by: ``compare``, of rules.
        Without it: ``Look()``: a place before ``FrozenUnits`` and a colour that is free.
        """


class LoggerProtocol(Protocol):
    """What a logger may offer beside Lightning's own names."""

    def log_image(self, key: str, images: "list[Figure]", *, step: int) -> Any:
        """Write figures, as the logger of W&B does.

        Asked by: every diagnostic with a figure.
        Without it: only a logger of TensorBoard gets figures. All are files too.
        """

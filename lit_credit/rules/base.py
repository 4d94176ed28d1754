"""The base class of all learning rules: units, updates, optimizer and scheduler."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_credit.feedback.learned import feedback_parameters
from lit_credit.feedback.matrices import FeedbackPair
from lit_credit.headlines import Look
from lit_credit.inspect.capture import Point, capture
from lit_credit.inspect.unit_names import all_names, expand_units, is_composite, with_prefix
from lit_credit.inspect.updates import batches_of
from lit_credit.protocols import NetProtocol, asked
from lit_credit.rules.checkpoints.described import describe_groups
from lit_credit.rules.checkpoints.hyperparameters import save_plain_hyperparameters
from lit_credit.rules.compilation import compile_options, run_compiled
from lit_credit.rules.evaluation.evaluated import EvaluatedRule
from lit_credit.rules.evaluation.monitors import check_monitor
from lit_credit.rules.first_batch import check_loss, explaining
from lit_credit.rules.gradient_clipping import clip_gradients, clip_norms
from lit_credit.rules.optimization import (
    check_numbers,
    check_options,
    made,
    skip_device_search,
    step_scheduler,
)
from lit_credit.rules.parameter_groups import (
    check_group_options,
    check_option_values,
    parameter_groups,
    warn_of_lost_rates,
    with_group_options,
)
from lit_credit.rules.schedule_checks import try_scheduler
from lit_credit.runs.checkpoint_io import save_atomically
from lit_credit.tasks import Task
from lit_credit.trainer.restarted_stream import warn_of_restarted_stream
from lit_credit.trainer.trainer import count_updates, is_at_epoch_start, logger_due
from lit_credit.utils.compiled import is_eager
from lit_credit.utils.inherited_docs import complete_arguments
from lit_credit.utils.names import match_names, submodule_names
from lit_credit.utils.random_state import set_random_state
from lit_credit.utils.ranges import check_parts, check_range

__all__ = ["CreditRule"]

Result = TypeVar("Result")


class CreditRule(EvaluatedRule):
    """A network, a task, and a rule that assigns credit to the network's units.

    A rule supplies one scalar, :meth:`surrogate`, whose autograd gradient is its update. Under
    every rule an update is one backward pass from that scalar and one optimizer step. It is one
    forward pass too, unless the rule runs further passes first: those of
    :class:`lit_credit.rules.InferenceRule`. A training step makes ``updates_per_step`` updates.

    With k updates per training step, small nets avoid most of Lightning's overhead. The weights are
    bit-identical to those of k training steps with one update each. Lightning's ``global_step``
    counts updates, and so do ``max_steps``, ``every_n_steps`` of callbacks, the axis of loggers and
    a scheduler that steps per step; ``limit_train_batches`` and ``val_check_interval`` count
    training steps. Lightning acts at every n-th step (``log_every_n_steps``,
    ``every_n_train_steps`` of checkpoints) only if a training step ends at a multiple of n, so make
    n a multiple of k. If a run reaches ``max_steps`` within a training step, it leaves out the
    remaining updates of that step, also when it is resumed. Each update averages gradients over
    all processes; each process has its own rows of that update's batch.

    Args:
        net: any module. The nets of lit_credit name their units themselves.
        task: what a batch means.
        optimizer: makes the optimizer from parameter groups: "units", "readout", "other", and under
            some rules "feedback" (matrices that learn) and "heads" (auxiliary modules).
        lr_scheduler: makes the scheduler; None keeps the learning rate.
        lr_interval: step the scheduler per epoch or per step.
        clip_norm: largest gradient norm of all parameters of the net together; in an ensemble, of
            the parameters of each net. Auxiliary heads and matrices of direct feedback are not part
            of the net. None does not clip.
        clip_per_unit: largest gradient norm of each unit, or of the units that match a pattern:
            ``{"blocks.*": 1.0}``; None does not clip.
        units: names or patterns (``layer*.*``) of the submodules of ``net`` that receive one
            credit signal each, in forward order; None takes ``net.credit_units``. ``fc1+act1``
            joins consecutive submodules into one unit, which ends at the output of the last.
            ``fc1->`` ends at the input of the next unit or of the readout, and ``fc1->pool`` at the
            input of ``pool``; such a unit includes functional activations, pooling and flattening
            in between. Joined patterns are paired in order: ``conv*+bn*->``. One ``nn.ReLU`` that
            runs after every layer may be joined to each layer: ``fc*+relu``.
        readout: names or patterns of the submodules after the last unit, which learn from the true
            gradient; None takes ``net.readout``.
        updates_per_step: updates k per training step. The datamodules of lit_credit return k
            batches of ``batch_size`` rows each. The rows of any other batch are split into k parts.
        group_options: options of the optimizer for some parameters, by the name of a group, by
            ``biases``, or by a pattern of parameter names (``blocks.*.weight``); for example
            ``{biases: {lr: 0.01, weight_decay: 0.0}, feedback: {lr: 0.1}}``. Biases and parameters
            of a pattern become a group of that name; patterns leave feedback that learns alone.
        compile: run the net, the loss and their backward pass through ``torch.compile``, as one
            graph: True, or arguments of ``torch.compile`` such as ``{mode: reduce-overhead}``.
            Training alone is compiled; diagnostics and evaluation run the net eagerly. Needs torch
            2.6. docs/speed.md has times.

    Raises:
        ValueError: if a pattern matches no submodule, or one is matched twice, or a number is out
            of range; at the first batch, if ``compile`` is set and torch does not compile the net
            and the loss.
    """

    exact_credit: ClassVar[bool] = False
    """Whether the rule's credit is the gradient that the net's backward pass computes."""
    look: ClassVar[Look] = Look()
    """How comparisons of runs show the rule; each class has its own, see docs/compare.md."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        complete_arguments(cls)

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        clip_norm: float | None = None,
        clip_per_unit: float | dict[str, float] | None = None,
        units: list[str] | None = None,
        readout: list[str] | None = None,
        updates_per_step: int = 1,
        *,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        super().__init__(net, task)
        save_plain_hyperparameters(self)
        check_parts(updates_per_step=updates_per_step)
        self.automatic_optimization = False
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.lr_interval = lr_interval
        self.updates_per_step = updates_per_step
        self.readout = self._readout(readout)
        self.units = self._units(units)
        check_range(above=0, finite=False, clip_norm=clip_norm)
        self.clip_norm = clip_norm
        self.clip_norms = clip_norms(net, self.units, clip_per_unit)
        check_option_values(group_options or {})
        self.group_options = group_options or {}
        self.compile_options = compile_options(compile)

    # Methods that a rule defines, and names that diagnostics read

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, and the scalar whose gradient is the rule's update; here they are the same."""
        loss = self._run(type(self).batch_loss, batch)
        return loss, loss

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit that the output of each unit that ran receives, of the output's shape."""
        with capture(self, [Point(name, "output") for name in self.credit_units]) as outputs:
            loss = self.batch_loss(batch)
        if not outputs:
            return {}
        gradients = torch.autograd.grad(
            loss, list(outputs.values()), allow_unused=True, materialize_grads=True
        )
        return {point.module: g for point, g in zip(outputs, gradients, strict=True)}

    def feedback_matrices(self) -> dict[str, FeedbackPair] | None:
        """The rule's fixed matrices, each with the weight it stands for; None if it has none.

        Matrices that are drawn at their first use are missing until then.
        """
        return None

    def extra_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Parameters with a group of the optimizer of their own: ``feedback``, if any learns."""
        return {"feedback": list(feedback_parameters(self).values())}

    @property
    def credit_units(self) -> list[str]:
        """Names of the units, as submodules of this module, in forward order.

        A unit of several submodules is named ``net.fc1+net.act1``;
        `lit_credit.inspect.capture` accepts such names.
        """
        return [with_prefix(name, "net.") for name in self.units]

    @property
    def residual_stream(self) -> list[str] | None:
        """Names of the submodules whose inputs are the residual stream, if the net declares it."""
        stream = asked(self.net, NetProtocol.residual_stream, None)
        return None if stream is None else [f"net.{name}" for name in stream]

    # One batch

    def forward(self, *inputs: Any) -> Any:
        """Run the net."""
        return self.net(*inputs)

    def batch_loss(self, batch: Any) -> Tensor:
        """The task's loss of the net on a batch."""
        return self.task.loss(self(*self.task.inputs(batch)), batch)

    def _run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call ``function(self, *args)``; compiled, if the rule is and no measurement runs.

        Args:
            function: a method of the rule's class, or another function whose first argument is the
                rule.
            *args: the other arguments.
        """
        if self.compile_options is None or is_eager():
            return function(self, *args)
        return run_compiled(self, self.compile_options, function, *args)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Make ``updates_per_step`` updates, each on its own batch, and return the last loss.

        Callbacks, such as that of ``Tuner.lr_find``, receive the loss.
        """
        start, last = self.trainer.global_step, self.trainer.max_steps
        for part in batches_of(batch, self.updates_per_step):
            loss = self.update(part)
            if self.trainer.global_step == last:
                break
        count_updates(self.trainer, self.trainer.global_step - start)
        if logger_due(self.trainer):
            self.log("train/loss", loss.detach(), prog_bar=True)
        return loss.detach()

    def update(self, batch: Any) -> Tensor:
        """Step the optimizer, and a scheduler that steps per update; return the batch's loss."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        with explaining(batch, self, self._passed, "training"):
            loss, scalar = self.surrogate(batch)
            check_loss(loss, type(self.task).__name__)
            self.manual_backward(scalar)
        optimizer.step()
        if self._schedules_updates:
            self._step_scheduler()
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip gradients in this hook: mixed precision does not unscale them before it."""
        clip_gradients(self.net, self.clip_norm, self.clip_norms)

    def on_train_epoch_end(self) -> None:
        """Step an epoch-wise scheduler; under manual optimization Lightning does not."""
        if not self._schedules_updates:
            self._step_scheduler()

    # Optimizer, start and end

    def configure_callbacks(self) -> list[Any]:
        """Refuse Trainer options that do not work under manual optimization, before any work.

        Also make the Trainer write checkpoints atomically, and refuse files that are not
        checkpoints of Lightning, unless the Trainer has its own checkpoint IO.
        """
        check_options(self.trainer, type(self).__name__)
        save_atomically(self.trainer)
        return []

    def configure_optimizers(self) -> Any:
        """One optimizer with named parameter groups, and the scheduler."""
        groups = parameter_groups(self.net, self.units, self.readout, self.extra_parameters())
        if not groups:
            raise ValueError("every parameter of `net` is frozen; leave at least one trainable.")
        own = {id(p) for parameters in self.extra_parameters().values() for p in parameters}
        names = {p: name for name, p in self.net.named_parameters() if id(p) not in own}
        groups = with_group_options(groups, self.group_options, names)
        optimizer = made("optimizer", self.make_optimizer, groups)
        check_group_options(self.group_options, optimizer)
        check_numbers("optimizer", optimizer)
        described = describe_groups(optimizer.param_groups)
        if self.make_scheduler is None:
            self.compare_with_checkpoint(optimizer, described, None)
            return optimizer
        scheduler = made("lr_scheduler", self.make_scheduler, optimizer)
        if isinstance(scheduler, ReduceLROnPlateau) and not hasattr(scheduler, "monitor"):
            raise ValueError(
                "`lr_scheduler` makes torch's ReduceLROnPlateau, which does not name the metric to "
                "watch. Use lightning.pytorch.cli.ReduceLROnPlateau and its `monitor`."
            )
        warn_of_lost_rates(self.group_options, optimizer)
        monitor = getattr(scheduler, "monitor", None)
        if monitor is None:
            try_scheduler(self.make_scheduler, self.make_optimizer, groups)
        else:
            check_monitor("`lr_scheduler`", monitor, self.trainer, self)
        self.compare_with_checkpoint(optimizer, described, scheduler)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_fit_start(self) -> None:
        """Restore the random states and the curves of a resumed run."""
        self.compare_if_not_done()
        skip_device_search()
        if self.loaded_random_state is not None:
            set_random_state(self.loaded_random_state)
            self.loaded_random_state = None
        self.continue_curves()
        super().on_fit_start()

    def on_train_start(self) -> None:
        """Step an epoch-wise scheduler for an epoch end that a resumed run has skipped."""
        super().on_train_start()
        warn_of_restarted_stream(self.trainer)
        scheduler: Any = self.lr_schedulers()
        if (
            self.lr_interval == "epoch"
            and is_at_epoch_start(self.trainer)
            and not isinstance(scheduler, ReduceLROnPlateau)  # its metric is not measured yet
            and getattr(scheduler, "last_epoch", math.inf) < self.trainer.current_epoch
        ):
            with warnings.catch_warnings():
                # torch warns, since it did not see the optimizer's steps before the checkpoint.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                self._step_scheduler()

    def on_fit_end(self) -> None:
        """Raise an error if there was no training batch; Lightning does not report this."""
        if self.trainer.num_training_batches == 0 and self.trainer.limit_train_batches:
            raise MisconfigurationException(
                "there is no training batch, so nothing was trained: the training data are empty, "
                "or fewer than a `batch_size` of which `drop_last` leaves the rest out."
            )

    # Helpers

    def _readout(self, patterns: Sequence[str] | None) -> list[str]:
        if patterns is None:
            return list(asked(self.net, NetProtocol.readout, []))
        joined = next(filter(is_composite, patterns), None)
        if joined is not None:
            raise ValueError(
                f"`readout`: {joined!r} joins submodules, which only `units` may. List each by "
                "itself: the readout gets the true gradient in any case."
            )
        return match_names(patterns, submodule_names(self.net), "readout")

    def _units(self, patterns: Sequence[str] | None) -> list[str]:
        names = submodule_names(self.net)
        after = next(iter(self.readout), None)
        if patterns is None:
            declared = list(asked(self.net, NetProtocol.credit_units, []))
            if not any(map(is_composite, declared)):
                return declared
            patterns = declared
        return expand_units(patterns, names, "units", after, all_names(self.net))

    @property
    def _schedules_updates(self) -> bool:
        """Whether the scheduler steps per update, as the one of ``Tuner.lr_find`` does."""
        configs = self.trainer.lr_scheduler_configs
        return self.lr_interval == "step" or any(found.interval == "step" for found in configs)

    def _step_scheduler(self) -> None:
        step_scheduler(self.lr_schedulers(), self.trainer.callback_metrics)

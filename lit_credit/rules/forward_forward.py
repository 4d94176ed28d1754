"""Forward-forward: every unit tells inputs with their label from inputs with a wrong one."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from lit_credit.feedback.unit_checks import stray_parameters
from lit_credit.feedback.units import UnitGraphs
from lit_credit.headlines import Look
from lit_credit.inspect.capture import Point, capture
from lit_credit.inspect.unit_names import with_prefix
from lit_credit.rules.cut import CutRule
from lit_credit.rules.extra_passes import extra_pass
from lit_credit.rules.goodness import MeanActivities, goodness, unit_rms, widened
from lit_credit.rules.labelled_inputs import inputs_and_classes, labelled
from lit_credit.rules.local_heads import LocalHeads
from lit_credit.rules.step_noise import StepNoise
from lit_credit.tasks import Task
from lit_credit.utils.colors import ORANGE
from lit_credit.utils.compiled import is_eager
from lit_credit.utils.nested import map_tensors
from lit_credit.utils.private_names import trainer_of
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["ForwardForward"]


class ForwardForward(StepNoise, CutRule):
    r"""Forward-forward: each unit learns to tell positive samples from negative ones.

    A positive sample is an input with its class, written one-hot into its first C entries; a
    negative sample has a wrong class, drawn uniformly at every step. Both run as one batch. With
    z_l the output of unit l, of d entries, the update is the gradient of the sum over l of

    ``L_l = BCE(sum z_l^2 - threshold d; 1 if positive, 0 if negative) + peer_weight P_l``,

    a mean over all 2N samples. Every unit hands its output on divided by the root mean square of
    the sample's entries, so that the next unit does not see the goodness ``sum z_l^2``. P_l is the
    variance over features of m_l, a running mean of each feature's activity over positive samples
    (``m <- peer_momentum m + (1 - peer_momentum) mean_n z``); it keeps features from being always
    on or always off. The means are saved, and several processes share them.

    A linear head without bias predicts the class from what all units but the first hand on (from
    the only unit, if there is one), in a pass whose label is neutral: 1/C in each of the C entries.
    It learns by the task's loss; the units do not learn from it. Heads are parameters of the
    optimizer's group ``heads``, which usually needs a larger learning rate (``group_options``). The
    net's own readout is not used: the rule freezes it.

    All entries of a feature map count as one layer's, for the goodness and for the rms, as in the
    paper. The label is local, so a convolution sees it in one corner alone. In a residual net, what
    a block adds to the stream has unit rms. A net needs float inputs and an output (N, C); only its
    width is used.

    Diagnostics compare credit, the gradient of L_l at z_l on positive samples, with the exact
    gradient of the prediction's loss: with a head that of the neutral pass, with ``goodness`` that
    of the pass with the true class.

    The authors train 3 x 1000 ReLU on MNIST with SGD 1e-3 (heads 1e-2), momentum 0.9, decay 3e-4;
    their ReLU passes the gradient on where it is off, ours does not. configs/rules has it, and
    digits.

    See :class:`lit_credit.rules.cut.CutRule` for the other arguments.

    Args:
        threshold: goodness per entry above which a sample counts as positive.
        peer_weight: weight of P_l; 0 leaves it out.
        peer_momentum: share of the former mean activity in the new one.
        label_scale: size of the one-hot entry.
        normalize_input: give each labelled input unit rms too.
        prediction: what answers in validation, tests and ``predict``: the ``head``, or
            ``goodness``: one pass for each of C classes, whose logit is the goodness of all units
            but the first. Both leave training the same, whose loss is that of the head.
        noise_seed: seed of the wrong classes; None takes the seed of the run.

    Raises:
        ValueError: if a number is out of range; at the first batch, if the input is not of floating
            point or has less than C entries, if the target is not one class per sample, or if the
            net's output is not (N, C) with at least two classes.

    Reference:
        Hinton, The Forward-Forward Algorithm: Some Preliminary Investigations, 2022,
        arXiv 2212.13345, sections 2 and 3.3. The mean activities, the unit rms of inputs and all
        numbers are those of Loewe's reimplementation (github.com/loeweX/Forward-Forward).
    """

    look = Look(order=12, color=ORANGE)

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
        stray: Literal["error", "freeze", "train"] = "error",
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        threshold: float = 1.0,
        peer_weight: float = 0.03,
        peer_momentum: float = 0.9,
        label_scale: float = 1.0,
        normalize_input: bool = True,
        prediction: Literal["head", "goodness"] = "head",
        noise_seed: int | None = None,
    ) -> None:
        check_range(above=0, threshold=threshold, label_scale=label_scale)
        check_range(0, peer_weight=peer_weight)
        check_range(0, below=1, peer_momentum=peer_momentum)
        check_range(0, noise_seed=noise_seed)
        check_choice(["head", "goodness"], prediction=prediction)
        super().__init__(
            net=net,
            task=task,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_interval=lr_interval,
            clip_norm=clip_norm,
            clip_per_unit=clip_per_unit,
            units=units,
            readout=readout,
            updates_per_step=updates_per_step,
            stray=stray,
            scale_penalty=scale_penalty,
            group_options=group_options,
        )
        self.threshold = threshold
        self.peer_weight = peer_weight
        self.label_scale = label_scale
        self.normalize_input = normalize_input
        self.prediction = prediction
        self.noise_seed = run_seed() if noise_seed is None else noise_seed
        self.heads = LocalHeads(self.units)
        self.activities = MeanActivities(self.units, peer_momentum)
        self._freeze_readout()

    def _freeze_readout(self) -> None:
        outside = set(stray_parameters(self.net, self.units))
        unused = outside - set(stray_parameters(self.net, [*self.units, *self.readout]))
        for name, parameter in self.net.named_parameters():
            if name in unused:
                parameter.requires_grad_(False)

    @property
    def residual_stream(self) -> None:
        """None: the prediction does not read the stream behind the last unit."""
        return None

    # Heads and means, whose shapes depend on the units' outputs

    @property
    def builds(self) -> bool:
        """The shapes of heads and means depend on the units' outputs."""
        return True

    def prepare(self, batch: Any) -> None:
        """Make heads and means from one batch; refuse batches without float inputs or classes."""
        inputs, classes = inputs_and_classes(self.task, batch)
        if bool((classes < 0).any()):
            raise ValueError(
                f"the classes begin at {int(classes.min())}, but ForwardForward writes each into "
                "its sample, so that none can be left out. Drop such samples, or train by DFA."
            )
        super().prepare(batch)
        self._labelled(inputs, self._label(classes))

    def build(self, outputs: Mapping[str, Tensor], output: Tensor) -> None:
        """Make the heads and means that are not there yet."""
        if output.dim() != 2 or output.shape[1] < 2:
            raise ValueError(
                f"the net's output is {tuple(output.shape)}, expected (N, C) with at least two "
                "classes: ForwardForward writes one of C labels into each sample."
            )
        answering = {name: outputs[name] for name in self._answering(outputs)}
        self.heads.make(answering, output.shape[1], positions=False, similar=False, bias=False)
        self.activities.make(outputs)

    def extra_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Also the group ``heads``."""
        return super().extra_parameters() | {"heads": list(self.heads.parameters())}

    @property
    def num_classes(self) -> int:
        """Classes C, which the heads know."""
        return len(self.heads.weight(self._answering(self.units)[0]))

    def _answering(self, names: Any) -> list[str]:
        """Those of the named units that answer: all but the first, or the only one."""
        wanted = self.units[1:] or self.units
        return [name for name in names if name in wanted]

    # Evaluation

    def forward(self, *inputs: Any) -> Any:
        """Run the net on labelled inputs and predict; inside of units cut apart, the net alone."""
        if self._is_cut:
            return self.net(*inputs)
        if self.prediction == "head":
            return self._by_head(inputs)
        first = torch.zeros(len(inputs[0]), dtype=torch.long, device=inputs[0].device)
        return self._by_goodness(inputs, first)

    def batch_loss(self, batch: Any) -> Tensor:
        """The task's loss of the prediction.

        With ``goodness`` the pass with the true class is the first one, which diagnostics record.
        """
        if self.prediction == "head":
            return super().batch_loss(batch)
        return self.task.loss(self._by_goodness(*inputs_and_classes(self.task, batch)), batch)

    def _by_head(self, inputs: tuple[Any, ...]) -> Tensor:
        neutral = inputs[0].new_full((len(inputs[0]), self.num_classes), 1 / self.num_classes)
        outputs = self._outputs_of(inputs, neutral)
        return self._answer(outputs)

    def _answer(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The prediction (N, C) of the heads."""
        names = self._answering(outputs)
        parts = [self.heads.predict(n, unit_rms(outputs[n]), positions=False) for n in names]
        return torch.stack(parts).sum(0)

    def _by_goodness(self, inputs: tuple[Any, ...], first: Tensor) -> Tensor:
        """The goodness (N, C) under each label; the first pass has the classes ``first`` (N,)."""
        logits, labels = [], []
        for shift in range(self.num_classes):
            labels.append((first + shift) % self.num_classes)
            outputs = self._outputs_of(inputs, self._label(labels[-1]))
            found = [goodness(outputs[name]) for name in self._answering(outputs)]
            logits.append(torch.stack(found).sum(0))
        order = torch.stack(labels, dim=1).argsort(dim=1)
        return torch.stack(logits, dim=1).gather(1, order)

    def _outputs_of(self, inputs: tuple[Any, ...], label: Tensor) -> dict[str, Tensor]:
        """The units' outputs, before they are handed on with unit rms."""
        points = {Point(with_prefix(name, "net."), "output"): name for name in self.units}
        with capture(self, list(points), change=unit_rms) as found:
            self.net(*self._labelled(inputs, label))
        return {points[point]: value for point, value in found.items()}

    # Training

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss of the heads, and the sum of the units' losses and the heads'."""
        inputs, _ = inputs_and_classes(self.task, batch)
        self.check_repeats(batch)
        neutral = inputs[0].new_full((len(inputs[0]), self.num_classes), 1 / self.num_classes)
        with torch.no_grad(), extra_pass(self.net):
            outputs = self._outputs_of(inputs, neutral)
        loss = self.task.loss(self._answer(outputs), batch)
        graphs = self._run_pairs(batch)
        learns = self.training and not is_eager()
        if self.training:
            self._trained.update(graphs.outputs)
        losses = self._unit_losses(graphs.outputs, learns)
        scalar = sum(losses.values(), loss)
        for output in graphs.outputs.values() if self.scale_penalty else ():
            scalar = scalar + self.scale_penalty * output.square().mean()
        return loss, scalar

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The gradient of each unit's loss by its output on the positive samples (N, ...)."""
        graphs = self._run_pairs(batch)
        outputs = {n: v.detach().requires_grad_() for n, v in graphs.outputs.items()}
        if not outputs:
            return {}
        total = torch.stack(list(self._unit_losses(outputs, learns=False).values())).sum()
        gradients = torch.autograd.grad(total, list(outputs.values()))
        return {
            with_prefix(name, "net."): gradient[: len(gradient) // 2]
            for name, gradient in zip(outputs, gradients, strict=True)
        }

    def _label(self, classes: Tensor) -> Tensor:
        return one_hot(classes, self.num_classes)

    def _labelled(self, inputs: tuple[Any, ...], label: Tensor) -> tuple[Any, ...]:
        return labelled(inputs, self.label_scale * label, self.normalize_input)

    def _run_pairs(self, batch: Any) -> UnitGraphs:
        """The units' graphs on N positive samples, followed by N negative ones."""
        inputs, classes = inputs_and_classes(self.task, batch)
        n = len(classes)
        twice = map_tensors(inputs, lambda t: torch.cat([t, t]) if t.shape[:1] == (n,) else t)
        label = self._label(torch.cat([classes, self._wrong(classes)]))
        _, graphs = self.run_cut(
            self._labelled(twice, label), values=lambda _, value: unit_rms(value)
        )
        return graphs

    def _wrong(self, classes: Tensor) -> Tensor:
        """A wrong class for each sample: this process's rows of those of the global batch."""
        count, generator = self.num_classes, self.step_generator(stream=1)
        shift = self.own_rows(
            lambda rows: torch.randint(1, count, (rows,), generator=generator), len(classes)
        )
        return (classes + shift.to(classes.device)) % count

    def _unit_losses(self, outputs: Mapping[str, Tensor], learns: bool) -> dict[str, Tensor]:
        """L_l of each unit that ran; ``learns`` also sets the running means."""
        losses = {}
        for name, output in outputs.items():
            rows = len(output)
            positive = (torch.arange(rows, device=output.device) < rows // 2).to(widened(output))
            logits = goodness(output) - self.threshold * output[0].numel()
            losses[name] = binary_cross_entropy_with_logits(logits, positive)
        if not self.peer_weight:
            return losses
        means = {name: widened(v[: len(v) // 2]).mean(0) for name, v in outputs.items()}
        trainer = trainer_of(self)
        shared: Mapping[str, Tensor] = {}
        if learns and trainer is not None and trainer.world_size > 1:
            reduce = trainer.strategy.reduce
            shared = self.activities.over_processes(means, partial(reduce, reduce_op="sum"))
        for name, mean in means.items():
            if name in shared:  # the value of all processes, with the gradient of this one
                mean = mean + (shared[name] - mean.detach())
            running = self.activities.next_mean(name, mean)
            losses[name] = losses[name] + self.peer_weight * running.var(correction=0)
            if learns:
                self.activities.set(name, running)
        return losses

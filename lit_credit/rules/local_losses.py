"""Local losses: every unit learns from an auxiliary loss at its own output."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lit_credit.feedback.units import LocalUnits
from lit_credit.headlines import Look
from lit_credit.inspect.capture import Point, capture
from lit_credit.inspect.unit_names import with_prefix
from lit_credit.protocols import NetProtocol, asked
from lit_credit.rules.cut import CutRule
from lit_credit.rules.local_heads import LocalHeads, similarity
from lit_credit.tasks import Task
from lit_credit.tasks.checks import tensor_output
from lit_credit.tasks.one_hot import one_hot_target
from lit_credit.utils.colors import SKY
from lit_credit.utils.nested import described
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["LocalLosses"]


class LocalLosses(CutRule):
    r"""Local losses: each unit has an auxiliary head and learns from that head's loss.

    The update is the gradient of ``loss(readout on the detached last state) + sum_l L_l``, where
    L_l is the local loss at the output h_l of unit l:

    - ``pred``: the task's loss of a linear head on h_l, whose weights start at zero;
    - ``sim``: the mean squared difference of two matrices of cosine similarities between the
      samples of the batch, that of ``linear(h_l)`` and that of the one-hot targets;
    - ``predsim``: ``(1 - sim_weight) pred + sim_weight sim``.

    A feature map is averaged to at most 2048 features in front of a linear head. Its similarity is
    that of the standard deviations, over positions, of a 3 x 3 convolution of the map. Sequences
    have a prediction at each position, and no similarity. A task without classes has heads of the
    width of the net's output, and no similarity. With several processes each compares the samples
    of its own rows, so similarity depends on their number.

    Mono-Forward is ``loss: pred`` with ``readout: []``, ``stray: freeze`` (the net's own head is
    not used) and ``prediction: last`` or ``sum``.

    Heads are parameters of the optimizer's group ``heads``, and are saved. They learn digits and
    MNIST on an MLP with Adam at 5e-4 to 1e-3; configs/rules has pred, predsim and mono_forward.

    See :class:`lit_credit.rules.cut.CutRule` for the other arguments.

    Args:
        loss: the local loss.
        sim_weight: share of the similarity in ``predsim``.
        prediction: what predicts, in training's loss, validation, tests and ``predict``: the
            ``readout``, the head of the ``last`` unit, or the ``sum`` of all heads.
        heads_seed: seed of the layers in front of the similarity; None takes the seed of the run.

    Raises:
        ValueError: if ``loss`` is sim and ``prediction`` is by heads, which only pred has; if
            ``prediction`` is the readout and there is none; at the first batch, if a similarity
            needs targets or unit outputs of another form.

    Reference:
        Nokland, Eidnes, Training Neural Networks with Local Error Signals, 2019, arXiv 1901.06656,
        section 2. Gong, Li, Abdulla, Mono-Forward: Backpropagation-Free Algorithm for Efficient
        Neural Network Training Harnessing Local Errors, 2025, arXiv 2501.09238.
    """

    look = Look(order=7, color=SKY)

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
        compile: bool | dict[str, Any] = False,
        loss: Literal["pred", "sim", "predsim"] = "predsim",
        sim_weight: float = 0.99,
        prediction: Literal["readout", "last", "sum"] = "readout",
        heads_seed: int | None = None,
    ) -> None:
        check_choice(["pred", "sim", "predsim"], loss=loss)
        check_choice(["readout", "last", "sum"], prediction=prediction)
        check_range(0, 1, sim_weight=sim_weight)
        check_range(heads_seed=heads_seed)
        if loss == "sim" and prediction != "readout":
            raise ValueError(
                f"`prediction` is {prediction!r}, but heads of `loss` 'sim' do not predict. Set "
                "`prediction` to 'readout', or `loss` to 'predsim'."
            )
        named = asked(net, NetProtocol.readout, []) if readout is None else readout
        if prediction == "readout" and not named:
            raise ValueError(
                "`prediction` is 'readout', but `readout` is empty. Name in `readout` what follows "
                "the last unit, or set `prediction` to 'last' or 'sum'; with `stray: freeze`, if "
                "the net has a head of its own."
            )
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
            compile=compile,
        )
        self.local_loss = loss
        self.sim_weight = sim_weight
        self.prediction = prediction
        self.heads = LocalHeads(self.units, run_seed() if heads_seed is None else heads_seed)
        self._output = torch.Size()  # the shape of the net's output in the last pass

    @property
    def residual_stream(self) -> list[str] | None:
        """The stream that the net declares; None if heads predict, which do not read it."""
        return super().residual_stream if self.prediction == "readout" else None

    # Heads

    @property
    def builds(self) -> bool:
        """The shapes of heads depend on the units' outputs."""
        return True

    def build(self, outputs: Mapping[str, Tensor], output: Tensor) -> None:
        """Make the heads that are not there yet."""
        if output.dim() > 3:
            raise ValueError(
                f"the net's output is {tuple(output.shape)}, expected (N, C) or (N, T, C): a head "
                "of a unit gives one answer for a sample or a position."
            )
        if self.local_loss != "pred":
            for name, value in outputs.items():
                self._check_similarity(name, value)
        width = None if self.local_loss == "sim" else output.shape[-1]
        self.heads.make(outputs, width, output.dim() == 3, similar=self.local_loss != "pred")

    def extra_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Also the group ``heads``."""
        return super().extra_parameters() | {"heads": list(self.heads.parameters())}

    # One batch

    def forward(self, *inputs: Any) -> Any:
        """Run the net, and answer with the chosen prediction."""
        if self.prediction == "readout" or self._is_cut:
            return self._run_net(inputs)
        points = {name: Point(with_prefix(name, "net."), "output") for name in self.units}
        with capture(self, list(points.values())) as found:
            self._run_net(inputs)
        outputs = {n: found[p] for n, p in points.items() if p in found}
        if self.prediction == "last":
            outputs = dict(list(outputs.items())[-1:])
        return self._combined(self._predictions(outputs))

    def _run_net(self, inputs: Any) -> Any:
        output = self.net(*inputs)
        self._output = tensor_output(output, self.task).shape
        return output

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss of the prediction, and the sum of all losses."""
        if self.is_compiled_now:
            return self.run_units_compiled(LocalLosses._whole_surrogate, batch)
        loss, graphs = self.run_units(batch)
        if self.training:
            self._trained.update(graphs.outputs)
        return self._summed(loss, graphs.outputs, batch)

    def _whole_surrogate(self, units: LocalUnits, batch: Any) -> tuple[Tensor, Tensor]:
        """The scalar as one graph, without checks, and a stack of loss and scalar."""
        graphs = units.begin(self.stray != "train")
        output = self(*self.task.inputs(batch))
        self.check_all_ran(graphs)
        loss, scalar = self._summed(self.task.loss(output, batch), graphs.outputs, batch)
        units.end()
        return scalar, torch.stack([loss, scalar]).detach()

    def _summed(
        self, loss: Tensor, outputs: Mapping[str, Tensor], batch: Any
    ) -> tuple[Tensor, Tensor]:
        """The loss of the prediction, and the sum of all losses, from that of the readout."""
        predictions = self._predictions(outputs)
        losses = self._local_losses(outputs, predictions, batch)
        total = sum(losses.values(), torch.zeros_like(loss))
        for output in outputs.values() if self.scale_penalty else ():
            total = total + self.scale_penalty * output.square().mean()
        scalar = total + loss if self.readout else total
        if self.prediction != "readout":
            with torch.no_grad():
                loss = self.task.loss(self._combined(predictions), batch)
        return loss, scalar

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The gradient of each unit's local loss by its output."""
        _, graphs = self.run_units(batch)
        outputs = {n: v.detach().requires_grad_() for n, v in graphs.outputs.items()}
        if not outputs:
            return {}
        losses = self._local_losses(outputs, self._predictions(outputs), batch)
        total = torch.stack(list(losses.values())).sum()
        gradients = torch.autograd.grad(
            total, list(outputs.values()), allow_unused=True, materialize_grads=True
        )
        return {
            with_prefix(name, "net."): gradient
            for name, gradient in zip(outputs, gradients, strict=True)
        }

    def _local_losses(
        self, outputs: Mapping[str, Tensor], predictions: Mapping[str, Tensor], batch: Any
    ) -> dict[str, Tensor]:
        share = {"pred": 0.0, "sim": 1.0, "predsim": self.sim_weight}[self.local_loss]
        target = None
        if share:
            name = type(self.task).__name__
            target = similarity(self._one_hot(outputs, batch, name))
        losses = {}
        for name, output in outputs.items():
            loss = output.new_zeros(())
            if share < 1:
                loss = (1 - share) * self.task.loss(predictions[name], batch)
            if target is not None:
                self._check_similarity(name, output)
                found = self.heads.similarity(name, output)
                loss = loss + share * mse_loss(found, target.to(found.dtype))
            losses[name] = loss
        return losses

    def _one_hot(self, outputs: Mapping[str, Tensor], batch: Any, task: str) -> Tensor:
        """One-hot targets (N, C)."""
        rows = next(iter(outputs.values())).shape[0]
        target = self.task.target(batch)
        if not isinstance(target, Tensor) or target.is_floating_point() or target.dim() != 1:
            raise ValueError(
                f"`loss` is {self.local_loss!r}, which compares the classes of samples, but the "
                f"target of {task} is {described(target)}, expected classes ({rows},). Set `loss` "
                "to 'pred'."
            )
        like = torch.empty(rows, self._output[-1], device=self.device)
        return one_hot_target(target, like, task, f"`loss` {self.local_loss}")

    def _check_similarity(self, name: str, output: Tensor) -> None:
        if output.dim() not in (2, 4):
            raise ValueError(
                f"`loss` is {self.local_loss!r}, which compares samples, but unit {name!r} hands "
                f"on {tuple(output.shape)}, expected (N, F) or (N, C, H, W). Set `loss` to 'pred'."
            )

    def _predictions(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of the heads that predict, by unit."""
        if self.local_loss == "sim":
            return {}
        positions = len(self._output) == 3
        return {name: self.heads.predict(name, v, positions) for name, v in outputs.items()}

    def _combined(self, predictions: Mapping[str, Tensor]) -> Tensor:
        """The answer of the last head, or of all."""
        answers = list(predictions.values())
        return answers[-1] if self.prediction == "last" else torch.stack(answers).sum(0)

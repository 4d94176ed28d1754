"""Feedback alignment whose matrices learn the weights from noise."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.layers import FeedbackLayer, FeedbackTransposed
from lit_credit.feedback.learned import feedback_parameters, learn_feedback
from lit_credit.feedback.matrices import feedback_names
from lit_credit.headlines import Look
from lit_credit.rules.fa import FA
from lit_credit.rules.optimization import made
from lit_credit.rules.parameter_groups import with_group_options
from lit_credit.rules.step_noise import StepNoise
from lit_credit.tasks import Task
from lit_credit.utils.colors import SKY
from lit_credit.utils.random_state import generator_of
from lit_credit.utils.ranges import check_range, check_sizes

__all__ = ["WeightMirror"]


class WeightMirror(StepNoise, FA):
    """Weight mirror: feedback matrices learn the weights from noise that passes through them.

    White noise x ~ N(0, 1) at the input of a layer gives ``y = x W^T``, whose product with x is W
    on average. The gradient of B is ``decay B - mean(y^T x)``, so that B grows by the product and
    tends to ``W / decay``. It enters the scalar of feedback alignment as
    ``<B, stopgrad(decay B - mean(y^T x))>``, with one batch of noise in each update. B is a
    parameter of the optimizer's group ``feedback``: ``group_options`` set its learning rate.
    Clipping scales its gradient by the factor of the weight beside it. A kernel of a convolution
    sees patches of noise; a bias and an activation are left out, as a neuron's baseline is in the
    reference. In a first phase before training only B learns.

    The reference also decays B, by a constant of its own. Its repository has a guard against growth
    that does nothing; here the decay bounds B.

    See :class:`lit_credit.rules.FA` for the other arguments.

    Args:
        mirror_decay: decay of B; B tends to W divided by it.
        mirror_samples: samples of noise in a batch of noise.
        mirror_batches: batches of noise before training; None takes as many as an epoch of training
            has batches. They are not counted as steps. A resumed run and a second ``fit`` do not
            repeat them.

    Raises:
        ValueError: if the net has weights that cannot be converted; the error lists them.

    Reference:
        Akrout, Wilson, Humphreys, Lillicrap, Tweed, Deep Learning without Weight Transport, 2019,
        arXiv 1904.05391, section 3.
    """

    look = Look(order=5, color=SKY)

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
        feedback: Distribution = "normal",
        feedback_scale: float = 1.0,
        feedback_seed: int | None = None,
        leave_exact: list[str] | None = None,
        mirror_decay: float = 1.0,
        mirror_samples: int = 128,
        mirror_batches: int | None = None,
    ) -> None:
        check_range(0, mirror_decay=mirror_decay)
        check_sizes(mirror_samples=mirror_samples)
        check_sizes(0, mirror_batches=mirror_batches)
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
            group_options=group_options,
            compile=compile,
            feedback=feedback,
            feedback_scale=feedback_scale,
            feedback_seed=feedback_seed,
            leave_exact=leave_exact,
        )
        learn_feedback(self.net, follow_weight=False)
        self.mirror_decay = mirror_decay
        self.mirror_samples = mirror_samples
        self.mirror_batches = mirror_batches
        self._has_mirrored = False
        self.noise_seed = self.feedback_seed

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also save whether the first phase is over."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["has_mirrored"] = self._has_mirrored

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the first phase if it is over."""
        super().on_load_checkpoint(checkpoint)
        self._has_mirrored = checkpoint.get("has_mirrored", True)

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, and the scalar whose gradient is the update of the net and of the matrices."""
        loss, scalar = super().surrogate(batch)
        return loss, scalar + self._mirrored(self.step_generator(stream=2))

    def on_train_start(self) -> None:
        """Let B learn alone before the first step."""
        super().on_train_start()
        if self.trainer.global_step == 0 and not self._has_mirrored:
            self._mirror_alone()
        self._has_mirrored = True

    def _mirror_alone(self) -> None:
        batches = self.mirror_batches
        if batches is None:
            known = self.trainer.num_training_batches
            batches = int(known) if known != float("inf") else 1000
        parameters = list(feedback_parameters(self.net).values())
        options = {k: v for k, v in self.group_options.items() if k == "feedback"}
        groups = with_group_options([{"params": parameters, "name": "feedback"}], options, {})
        optimizer = made("optimizer", self.make_optimizer, groups)
        rank_zero_info(f"WeightMirror: {batches} batches of noise before training.")
        for index in range(batches):
            optimizer.zero_grad()
            with torch.enable_grad():
                scalar = self._mirrored(generator_of(self.noise_seed, index, 3))
            gradients = torch.autograd.grad(scalar, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        optimizer.zero_grad()

    def _mirrored(self, generator: torch.Generator) -> Tensor:
        """The scalar whose gradient by each B is ``decay B - mean(y^T x)``."""
        total: Tensor | float = 0.0
        for feedback, weight in self._pairs():
            rows = weight.detach().flatten(1)  # (out, in)
            size = self.mirror_samples, rows.shape[1]
            # The same numbers in every precision: Lightning's 64-true changes the default type.
            noise = torch.randn(size, generator=generator, dtype=torch.float32).to(rows)
            growth = (noise @ rows.T).T @ noise / self.mirror_samples
            towards = self.mirror_decay * feedback.detach().flatten(1) - growth
            total = total + (feedback.flatten(1) * towards).sum()
        return total if isinstance(total, Tensor) else torch.zeros((), device=self.device)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every B once, with its weight, both (out, in, ...)."""
        seen: set[int] = set()
        for layer in self.net.modules():
            if not isinstance(layer, FeedbackLayer):
                continue
            for weight_name, name in feedback_names(layer).items():
                feedback, weight = getattr(layer, name), getattr(layer, weight_name)
                if id(feedback) in seen:
                    continue
                seen.add(id(feedback))
                transposed = isinstance(layer, FeedbackTransposed)
                yield (feedback.T, weight.T) if transposed else (feedback, weight)

"""Direct feedback alignment."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Size, Tensor, nn

from lit_credit.feedback.credits import Credits, rows_of
from lit_credit.feedback.direct_feedback import DirectFeedback, ErrorShape
from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.matrices import FeedbackPair
from lit_credit.headlines import Look
from lit_credit.inspect.unit_names import unit_aliases
from lit_credit.rules.local import LocalRule
from lit_credit.tasks import Task
from lit_credit.tasks.one_hot import one_hot_target
from lit_credit.utils.colors import ORANGE
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["DFA"]


class DFA(LocalRule):
    """Direct feedback alignment: the output error reaches every unit through a fixed matrix.

    ``a_l = e B_l^T``, where e is the derivative of the loss by the net's output, or the ``signal``
    in its place. Inside a unit the gradient is exact. If a unit is a layer with its activation
    (``units: [fc1+act1, fc2+act2]``, or ``[fc1->, fc2->]`` where activations are functions), the
    update is equation 7 of the reference, ``delta_l = (B_l e) * f'(z_l)``.

    See :class:`lit_credit.rules.LocalRule` for the other arguments.

    Args:
        feedback: distribution of the matrices; see :func:`lit_credit.feedback.draw_feedback`.
        feedback_scale: factor on the matrices.
        feedback_seed: seed of the matrices' own generator; None takes the seed of the run.
        shared_feedback: True gives all units the same matrix; a dict maps a unit to the unit whose
            matrix it uses, for example ``{embed: blocks.0}``.
        error: shape of the error that the units see; see
            :class:`lit_credit.feedback.DirectFeedback`. For feature maps under plain SGD take
            ``feedback`` xavier, or a tenth of BP's learning rate: with the default feedback a LeNet
            diverges under SGD at 0.01. It learns under AdamW; docs/other_projects.md has the
            numbers.
        signal: what the matrices carry. ``error``: e. ``sign``: ``sign(e) / n`` (sDFA), n the
            number of rows that the loss averages over. ``target``: ``y / n`` with the one-hot
            target y, or a target of the output's shape (DRTP); no error is needed, and the units
            get their credit however well the net does. Both push with constant strength: take
            bounded activations (tanh) and small steps. With ReLU and Adam at 1e-3, sDFA diverges
            and DRTP is worse than frozen units on digits; docs/rules.md has numbers. The authors
            of DRTP do not divide by n: ``feedback_scale`` n does the same.
        rank: None draws full matrices; a number r draws matrices of rank r, which share their
            right factor; see :class:`lit_credit.feedback.DirectFeedback`.
        error_at: where e is taken. ``output``: at the net's output, (N, C) or (N, T, C).
            ``readout``: the gradient at the output of the last unit, through the readout, so that
            B_l is (F, d) in place of (F, C): for large vocabularies, whose readout learns by
            backpropagation in any case. The last unit gets ``e B_l^T`` as all others do.

    Reference:
        Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, 2016,
        arXiv 1609.01596, equation 7. ``target``: Frenkel, Lefebvre, Bol, Learning Without Feedback:
        Fixed Random Learning Signals Allow for Feedforward Training of Deep Neural Networks, 2021,
        arXiv 1909.01311, which also tests ``sign``. ``rank``: Hanut, Kadmon, 2025,
        arXiv 2502.20580. ``error_at`` readout: Launay, Poli, Boniface, Krzakala, Direct Feedback
        Alignment Scales to Modern Deep Learning Tasks and Architectures, 2020, arXiv 2006.12878.
    """

    look = Look(order=3, color=ORANGE)
    learns_feedback: ClassVar[bool] = False
    """Whether B is a parameter; :meth:`feedback_gradients` gives its gradient."""

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
        normalize_credit: bool = False,
        stray: Literal["error", "freeze", "train"] = "error",
        recompute: bool = False,
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
        feedback: Distribution = "normal",
        feedback_scale: float = 1.0,
        feedback_seed: int | None = None,
        shared_feedback: bool | dict[str, str] = False,
        error: ErrorShape = "auto",
        signal: Literal["error", "sign", "target"] = "error",
        rank: int | None = None,
        error_at: Literal["output", "readout"] = "output",
    ) -> None:
        check_range(feedback_scale=feedback_scale, feedback_seed=feedback_seed)
        check_choice(["error", "sign", "target"], signal=signal)
        check_choice(["output", "readout"], error_at=error_at)
        if signal == "target" and error_at == "readout":
            raise ValueError(
                "`signal` is 'target', which has the shape of the net's output, but `error_at` is "
                "'readout'. Leave `error_at` at 'output'."
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
            normalize_credit=normalize_credit,
            stray=stray,
            recompute=recompute,
            scale_penalty=scale_penalty,
            group_options=group_options,
            compile=compile,
        )
        if isinstance(shared_feedback, dict):
            known = unit_aliases(self.units)
            shared_feedback = {
                known.get(name, name): known.get(other, other)
                for name, other in shared_feedback.items()
            }
        self.feedback = DirectFeedback(
            self.units,
            distribution=feedback,
            scale=feedback_scale,
            seed=run_seed() if feedback_seed is None else feedback_seed,
            shared=shared_feedback,
            error=error,
            rank=rank,
            learned=self.learns_feedback,
        )
        self.signal = signal
        self.error_at = error_at

    @property
    def error_at_unit(self) -> bool:
        """Whether the error is the gradient at the output of the last unit."""
        return self.error_at == "readout"

    def learned_matrix(self) -> nn.Parameter:
        """All matrices of the units in one parameter, where they learn.

        Raises:
            ValueError: if they are not drawn yet, or do not learn.
        """
        matrix = self.feedback.matrix
        if not isinstance(matrix, nn.Parameter):
            raise ValueError(
                f"the feedback of {type(self).__name__} is not drawn yet. Call `prepare(batch)` "
                "before training without a Trainer."
            )
        return matrix

    @property
    def builds(self) -> bool:
        """Whether B is a parameter, which must exist before the optimizer is made."""
        return self.learns_feedback

    def build(self, outputs: Mapping[str, Tensor], output: Tensor) -> None:
        """Draw the matrices that are not drawn yet."""
        self.feedback(torch.zeros_like(output), {n: v.shape for n, v in outputs.items()})

    def send(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float, batch: Any
    ) -> Credits:
        """``e B_l^T`` in the shapes of the units' outputs."""
        if self.signal == "sign":
            error = error.sign() * (scale / rows_of(error.shape))
        elif self.signal == "target":
            name = type(self.task).__name__
            target = one_hot_target(self.task.target(batch), error, name, "`signal` target")
            error = target * (scale / rows_of(error.shape))
        credits: Credits = self.feedback(error, shapes, scale)
        return credits

    def feedback_matrices(self) -> dict[str, FeedbackPair]:
        """The last unit's matrix with the weight of the readout, if one Linear; else all of it.

        Matrices of low rank, and those that carry the gradient at the readout's input, stand for no
        single weight.
        """
        matrix = self.feedback.matrix
        if matrix is not None and self.learns_feedback:
            matrix = matrix.detach()
        if matrix is None or not self.feedback.is_drawn(self.units[-1]):
            return {}
        last = self.net.get_submodule(self.readout[-1]) if len(self.readout) == 1 else None
        # The last rows belong to the last unit, unless it uses another unit's matrix.
        ends = list(dict.fromkeys(map(self.feedback.source.get, self.units)))[-1] == self.units[-1]
        alone = self.feedback.rank is not None or self.error_at == "readout"
        if not alone and isinstance(last, nn.Linear) and len(matrix) >= last.in_features and ends:
            own = matrix[-last.in_features :]  # (d, C)
            if own.shape == last.weight.T.shape:
                return {self.credit_units[-1]: FeedbackPair(own, last.weight.T)}
        return {"feedback": FeedbackPair(matrix, None)}

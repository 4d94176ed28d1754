"""Curvature of the loss: the ends of the Hessian's spectrum."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Tensor, nn

from lit_credit.callbacks.base.chunk import Chunk, unfrozen
from lit_credit.callbacks.base.failures import is_out_of_memory
from lit_credit.callbacks.base.parameters import check_parameters, measured_parameters
from lit_credit.callbacks.base.points import unit_names
from lit_credit.callbacks.base.whole_probe import WholeProbeDiagnostic
from lit_credit.callbacks.credit.sharpness_figure import sharpness_figure
from lit_credit.functional import ExtremeEigenvalues, extreme_eigenvalues
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.inspect.capture import Point
from lit_credit.inspect.second_order import (
    add_parts,
    differentiable_once,
    gauss_newton_product,
    hessian_product,
    length_of,
    parts_of,
    share_beside,
)
from lit_credit.protocols import ModuleProtocol, asked
from lit_credit.runs.history import Row
from lit_credit.trainer.learning_rates import learning_rate
from lit_credit.utils.names import match_names, submodule_names
from lit_credit.utils.private_names import trainer_of
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_text import choice, shortened

__all__ = ["Sharpness"]

_MOST_KEPT = 1 << 25
"""Numbers of all vectors of Lanczos' method that are kept together: 128 MiB of float32."""
_BESIDE = 0.01
_ASYMMETRIC = {torch.bfloat16: 0.1, torch.float16: 0.1}
"""Asymmetry, by dtype of the weights, that cannot be rounding; of other dtypes 0.005."""
_REMEDY = "Use another implementation of it in the net, or leave this diagnostic out."


class Sharpness(WholeProbeDiagnostic):
    r"""How curved is the loss here? The largest eigenvalue of its Hessian, and the smallest.

    The loss is the mean over the ``n_samples`` rows of the probe, as a function of the trained
    parameters (all parameters, if none is trained). Of fewer rows it is more curved, so compare
    runs with equal ``n_samples``. Derivatives are exact under every rule. Logs:

    - ``sharpness/hessian``: the largest eigenvalue of the Hessian;
    - ``sharpness/hessian_min``: the smallest one that was found. If it is negative, the loss is
      curved downwards along some direction;
    - ``sharpness/gauss_newton``: the largest eigenvalue of the Gauss-Newton matrix ``J' H J``, J
      the Jacobian of the net's output, H the Hessian of the loss by the output. For cross-entropy
      it is the Fisher matrix. It needs ``output``, and is left out with one line without it;
    - ``sharpness/times_lr``: ``sharpness/hessian`` times the learning rate, NaN if that is not
      known. If parameters have several rates it takes the largest one: the product is then an upper
      bound;
    - ``sharpness/residual``: the largest error bound of these largest eigenvalues, relative to the
      eigenvalue. Above ``tolerance``, raise ``iterations``;
    - ``sharpness/eigenvalue/E00`` ..: with ``leading`` above 1, the largest eigenvalues of the
      Hessian in descending order.

    On a quadratic loss, gradient descent diverges where ``times_lr`` exceeds 2; with momentum
    :math:`\beta` the limit is :math:`2 (1 + \beta)`, with Nesterov's
    :math:`2 (1 + \beta) / (1 + 2 \beta)`. The figure marks the limit for ``torch.optim.SGD``. For
    Adam and others, which precondition their steps, these limits do not hold, and none is drawn.

    Inside a measurement, attention runs by torch's plain implementation and recurrent layers
    without cuDNN, because the fused kernels have no second derivatives. Other functions without
    one raise an error that names them at the first measurement, and give NaN later. A detached
    tensor counts as a constant. If the matrix is not symmetric, as behind a custom backward that is
    not the gradient of its forward, all values are NaN, and one warning says so.

    Costs up to ``iterations`` products with each matrix, some 10 to 20 in all; a product costs 4 to
    7 training steps of ``n_samples`` rows. Takes two to three times the memory of a training step:
    attention is not fused, there is a graph of second derivatives, and ``iterations`` vectors as
    long as all parameters are kept, or 3 if they would exceed 128 MiB. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the other arguments.

    Args:
        leading: number of largest eigenvalues of the Hessian; above 1, all vectors are kept.
        gauss_newton: also measure the Gauss-Newton matrix.
        output: name of the submodule whose output the loss is computed from, such as ``model`` or
            ``lm_head``; None takes the module's ``net`` if the loss depends on the parameters
            through its output alone.
        iterations: the most products with each matrix.
        tolerance: stop when the relative residual is below this.
        units: names or patterns of submodules whose parameters count, for a block of the matrices;
            None takes all.

    Raises:
        ValueError: if a number is out of its range, or ``output`` is not one submodule.
        MisconfigurationException: at the first measurement, if an operation has no second
            derivative.

    Example::

        trainer = Trainer(callbacks=[Sharpness(output="model", every_n_epochs=5)])

    Reference:
        Cohen, Kaur, Li, Kolter, Talwalkar, Gradient Descent on Neural Networks Typically Occurs at
        the Edge of Stability, 2021, arXiv 2103.00065, section 2.
    """

    name = "sharpness"
    section = "sharpness"
    charts = ("hessian", "hessian_min", "gauss_newton", "times_lr")
    default_n_samples = 256
    steps_of_a_batch = 200.0
    options = ("leading", "gauss_newton", "output", "iterations", "tolerance")
    headline = (
        Headline(
            "sharpness",
            "hessian",
            order=55,
            log=True,
            panel=Panel(
                "Curvature of the loss", "largest eigenvalue of the Hessian", log=True, order=6
            ),
        ),
    )

    def __init__(
        self,
        *,
        leading: int = 1,
        gauss_newton: bool = True,
        output: str | None = None,
        iterations: int = 20,
        tolerance: float = 0.01,
        n_samples: int | None = None,
        chunk_size: int | None = None,
        units: list[str] | None = None,
        loss: LossFunction | None = None,
        probe: Literal["val", "train"] = "val",
        mode: Literal["eval", "train"] = "eval",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            n_samples=n_samples,
            chunk_size=chunk_size,
            units=units,
            loss=loss,
            probe=probe,
            mode=mode,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_range(1, leading=leading, iterations=iterations)
        check_range(0, 1, tolerance=tolerance)
        if leading > iterations:
            raise ValueError(
                f"`leading` is {leading} and `iterations` is {iterations}, expected at least as "
                "many iterations as eigenvalues."
            )
        self.leading = leading
        self.gauss_newton = gauss_newton
        self.output = output
        self.iterations = iterations
        self.tolerance = tolerance

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the parameters, and the submodule whose output may be that of the net."""
        self._names = None if self.units is None else unit_names(self, module, self.units)
        check_parameters(module, self._names)
        self._point: Point | None = None
        self._share: float | None = None
        self._optimizer, self._limit = "", math.nan
        if self.output is not None:
            found = match_names([self.output], submodule_names(module), "output")
            if len(found) != 1:
                raise ValueError(
                    f"`output` is {self.output!r}, which is {choice(found)}; expected one name."
                )
            self._point = Point(found[0], "output")
        elif isinstance(asked(module, ModuleProtocol.net, None), nn.Module):
            self._point = Point("net", "output")

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Prove that the loss depends on the parameters through the output alone."""
        if not self.gauss_newton:
            return {}
        point = self._output_of(chunk)
        if point is None or self._share is None:
            return {}
        text = f"share of the gradient that does not come through {point.module!r}"
        return {text: self._share}

    def compute(self) -> dict[str, float]:
        """The eigenvalues, and the largest one times the learning rate."""
        first = self.kept[0]
        parameters = self._parameters(first.module)
        with nullcontext() if parameters[0].requires_grad else unfrozen(first.module):
            _refuse_cut(first.few(), parameters)
            point = self._output_of(first) if self.gauss_newton else None
            ends = [self._ends(parameters, None)]
            ends += [self._ends(parameters, point)] if point is not None else []
        hessian = ends[0]
        values = {"hessian": float(hessian.largest[0]), "hessian_min": float(hessian.smallest)}
        if point is not None:
            values["gauss_newton"] = float(ends[1].largest[0])
        found = learning_rate(trainer_of(first.module), parameters)
        self._optimizer, self._limit = found.optimizer, found.limit
        values["times_lr"] = values["hessian"] * found.rate
        values["residual"] = float(torch.tensor([_relative_residual(end) for end in ends]).max())
        for index in range(self.leading if self.leading > 1 else 0):
            values[f"eigenvalue/E{index:02d}"] = float(hessian.largest[index])
        return values

    def _ends(self, parameters: Sequence[Tensor], output: Point | None) -> ExtremeEigenvalues:
        """Ends of the spectrum of the Hessian, or of the Gauss-Newton matrix at an output."""
        size, leading = length_of(parameters), self.leading if output is None else 1
        like = torch.empty(0, device=parameters[0].device, dtype=_vector_dtype(parameters))
        # The same vector at every measurement, on every device.
        start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(like)
        found = extreme_eigenvalues(
            lambda vector: self._product(vector, parameters, output),
            start,
            count=leading,
            iterations=self.iterations,
            tolerance=self.tolerance,
            both_ends=output is None,  # a Gauss-Newton matrix ends at 0
            keeps_all=leading > 1 or size * self.iterations <= _MOST_KEPT,
        )
        if found.asymmetry > _ASYMMETRIC.get(parameters[0].dtype, 0.005):
            self.attempts.tell(
                max(self._last_step, 0),
                f"the second derivatives are not symmetric (by {float(found.asymmetry):.2g} of the "
                "largest eigenvalue): a custom backward is not the gradient of its forward, or "
                "rounding is too coarse",
            )
            return ExtremeEigenvalues(*(part * math.nan for part in found))
        return found

    def _product(
        self, vector: Tensor, parameters: Sequence[Tensor], output: Point | None
    ) -> Tensor:
        """The product of a matrix with a vector, summed over the chunks."""
        total, parts = torch.zeros_like(vector), parts_of(vector, parameters)
        for chunk in self.kept:
            with chunk.graph([] if output is None else [output]) as (loss, values):
                if output is not None and output not in values:
                    continue  # it did not run on these rows
                with _second_derivatives():
                    found = (
                        hessian_product(loss, parameters, parts)
                        if output is None
                        else gauss_newton_product(loss, values[output], parameters, parts)
                    )
            add_parts(total, found)
        return total

    def _output_of(self, chunk: Chunk) -> Point | None:
        """The point of the net's output; None, with one line, if it is not known."""
        if self._share is None:
            reason, self._share = self._unfit(chunk.few())
            if reason and self.output is not None:
                raise ValueError(f"`output`: {reason}.")
            if reason:
                self._point = None
                rank_zero_info(
                    f"{type(self).__name__} leaves out the Gauss-Newton matrix: {reason}. Set "
                    "`output` to the submodule whose output the loss is computed from."
                )
        return self._point

    def _unfit(self, chunk: Chunk) -> tuple[str, float]:
        """Why the candidate is not the net's output, or ""; and the gradient's share beside it."""
        if self._point is None:
            return "the module has no `net`", math.nan
        name, parameters = self._point.module, self._parameters(chunk.module)
        with chunk.graph([self._point]) as (loss, values):
            output = values.get(self._point)
            if output is None:
                return f"{name!r} did not run, or hands on no floating-point tensor", math.nan
            if output.ndim == 0:
                return f"{name!r} hands on a single number, as if it were the loss", math.nan
            with _second_derivatives():
                share = share_beside(loss, output, parameters)
        if share > _BESIDE and self.output is None:
            return f"the loss also depends on parameters beside the output of {name!r}", share
        return "", share

    def _parameters(self, module: LightningModule) -> list[nn.Parameter]:
        return list(measured_parameters(module, self._names).values())

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The ends of the spectrum over epochs, and the largest times the learning rate."""
        return sharpness_figure(rows, section, limit=self._limit, optimizer=self._optimizer)


def _refuse_cut(chunk: Chunk, parameters: Sequence[Tensor]) -> None:
    """Refuse functions whose part of the second derivative torch leaves out without an error."""
    with chunk.graph() as (loss, _), _second_derivatives():
        cut = differentiable_once(loss, parameters)
    if cut:
        raise MisconfigurationException(
            f"{choice(cut)} has no second derivative: its backward is marked with "
            f"`once_differentiable`. {_REMEDY}"
        )


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """Name the missing derivative, and the remedy, in the error of a second backward pass.

    Raises:
        MisconfigurationException: in place of an error that is not about memory.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = shortened(str(error).strip().partition("\n")[0].rstrip("."), 300)
        raise MisconfigurationException(
            f"an operation of the net has no second derivative: {reason}. {_REMEDY}"
        ) from error


def _vector_dtype(parameters: Sequence[Tensor]) -> torch.dtype:
    """float32, or float64 if a parameter has that precision."""
    dtype = torch.float32
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.real.dtype)
    return dtype


def _relative_residual(ends: ExtremeEigenvalues) -> float:
    """The largest residual over its eigenvalue; 0 for one that is exact; NaN if none is known."""
    ratios = torch.where(ends.residuals == 0, 0.0, ends.residuals / ends.largest.abs())
    known = ratios[~ratios.isnan()]
    return float(known.max()) if len(known) else math.nan

"""The size of updates, weights, gradients and activations, unit by unit."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.parameter import is_lazy

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.last_step import LastStepDiagnostic
from lit_credit.callbacks.base.parameter_groups import ParameterGroup, parameter_groups
from lit_credit.callbacks.base.points import declares_units, layer_tag, unit_names
from lit_credit.callbacks.credit.update_figure import update_figure
from lit_credit.functional import dead_share, joint_norm, update_ratio
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.activity import Activity, Site, watch_activity
from lit_credit.runs.history import Row

__all__ = ["UpdateRatios"]


class UpdateRatios(LastStepDiagnostic):
    r"""Is anything dead, or running away? ``|dW| / |W|`` of the last update, unit by unit.

    A group is a unit (``units``, or what the module declares) or any other layer that trains.
    First come the numbers of the whole module:

    - ``updates/ratio/total``: ``|dW| / |W|`` of the update of the last training batch, over all
      parameters that train; ``updates/ratio/min`` and ``max`` over groups. About 1e-3 is healthy.
      NaN where no update was seen: before training, and outside of ``fit``;
    - ``updates/weight/total``: ``|W|``; ``updates/gradient/total``: norm of the module's own
      gradient, which is the rule's update, of the mean over the probe;
    - ``updates/dead/total``: share of the units of all activations that give one value, such as 0,
      on the whole probe; ``updates/dead/max`` of the worst group;
    - ``updates/saturated/total`` and ``max``: share of the values of ``tanh`` and sigmoids within 1
      % of a bound; left out if the net has none;
    - ``updates/activation/max``: the largest magnitude of any layer's or activation's output.

    The history has all of them for each group as well: ``updates/ratio/L00``,
    ``updates/weight/L00``, ``updates/gradient/L00``, ``updates/dead/L00``,
    ``updates/saturated/L00`` (where the group has such an activation), ``updates/activation/L00``.
    Loggers get these for at most 16 groups. ``|W|`` of a group counts frozen parameters, its ratio
    only those that train.

    Activations are torch functions (``relu``, ``gelu``, ``tanh``, ...) and submodules of such
    names; each belongs to the layer that ran before it. Its units are its features: the channels
    after a convolution, else the last dimension. In a group without an activation they are the
    features of its last layer. A range of 1e-6 of the layer's largest value counts as one value.

    Costs one forward and backward pass on ``n_samples`` rows, a gradient of all parameters, and one
    copy of the parameters during a batch that is measured. The values do not depend on
    ``chunk_size``. See :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.
    """

    name = "update_ratios"
    section = "updates"
    over_layers = ()
    charts = ("ratio", "dead")
    steps_of_a_batch = 2.0
    headline = (
        Headline(
            "update_ratio",
            "ratio/total",
            head="|dW|/|W|",
            form=".1e",
            log=True,
            panel=Panel("Size of the last update", r"$|\Delta W|\,/\,|W|$, all weights", log=True),
        ),
        Headline("dead_units", "dead/total", form=".3f", better="down"),
    )

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Group the parameters."""
        is_known = self.units is not None or declares_units(module)
        self._units = unit_names(self, module, self.units) if is_known else []
        self._group(module)

    def _group(self, module: LightningModule) -> None:
        """Group the parameters; lazy ones have no place before a first forward pass."""
        self._grows = any(map(is_lazy, module.parameters()))
        self.groups = parameter_groups(module, self._units)
        self.layer_texts = [group.name for group in self.groups]
        self._index = {
            layer: index for index, group in enumerate(self.groups) for layer in group.layers
        }

    def reset(self) -> None:
        """Forget gradients and activations."""
        super().reset()
        self._activity = Activity()
        self._gradients: dict[str, Tensor] = {}

    def update(self, chunk: Chunk) -> None:
        """Add a chunk's part of the gradient, and look at its activations."""
        if self._grows:
            self._group(chunk.module)
        trained = {name: p for group in self.groups for name, p in group.trained().items()}
        with watch_activity(chunk.module, self._index, self._activity):
            found = chunk.parameter_gradients(list(trained.values()))
        for name, gradient in zip(trained, found, strict=True):
            before = self._gradients.get(name)
            self._gradients[name] = gradient if before is None else before.add_(gradient)

    def compute(self) -> dict[str, float]:
        """The numbers of the whole module, then those of each group."""
        groups = self.groups
        sites = [self._sites(index) for index in range(len(groups))]
        columns = {
            "ratio": [self._ratio([group]) for group in groups],
            "weight": [_norm(list(group.parameters.values())) for group in groups],
            "gradient": [self._gradient([group]) for group in groups],
            "dead": [_dead(of) for of in sites],
            "saturated": [_saturated(of) for of in sites],
            "activation": [self._largest(index) for index in range(len(groups))],
        }
        every = [site for of in sites for site in of]
        weights = [p for group in groups for p in group.parameters.values()]
        totals = {
            "ratio/total": self._ratio(groups),
            "ratio/min": _extreme(min, columns["ratio"]),
            "ratio/max": _extreme(max, columns["ratio"]),
            "weight/total": _norm(weights),
            "gradient/total": self._gradient(groups),
            "dead/total": _dead(every),
            "dead/max": _extreme(max, columns["dead"]),
            "saturated/total": _saturated(every),
            "saturated/max": _extreme(max, columns["saturated"]),
            "activation/max": _largest(
                [x for i, x in enumerate(columns["activation"]) if self._ran(i)]
            ),
        }
        each = {
            f"{quantity}/{layer_tag(index)}": value
            for quantity, column in columns.items()
            for index, value in enumerate(column)
        }
        has_bounds = {f"saturated/{layer_tag(i)}" for i, of in enumerate(sites) if _bounded(of)}
        left_out = {"saturated/total", "saturated/max"} if not has_bounds else set()
        return {
            tag: value
            for tag, value in {**totals, **each}.items()
            if tag not in left_out and (not tag.startswith("saturated/L") or tag in has_bounds)
        }

    def _ratio(self, groups: Sequence[ParameterGroup]) -> float:
        update = self.last_update
        if update is None:
            return math.nan
        moved = {n: p for group in groups for n, p in group.parameters.items() if n in update}
        return float(update_ratio([update[name] for name in moved], list(moved.values())))

    def _gradient(self, groups: Sequence[ParameterGroup]) -> float:
        of = [self._gradients[name] for group in groups for name in group.trained()]
        return _norm(of)

    def _sites(self, index: int) -> list[Site]:
        """The activations of a group; if it has none, the output of its last layer."""
        found = list(self._activity.activations.get(index, {}).values())
        return found or list(self._activity.outputs.get(index, {}).values())[-1:]

    def _ran(self, index: int) -> bool:
        """Whether a layer or activation of a group gave a value."""
        return bool(self._activity.activations.get(index) or self._activity.outputs.get(index))

    def _largest(self, index: int) -> float:
        """The largest magnitude that any layer or activation of a group gave."""
        of = (self._activity.activations, self._activity.outputs)
        sites = [site for kind in of for site in kind.get(index, {}).values()]
        return _largest([float(side.abs().max()) for s in sites for side in (s.low, s.high)])

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Relative updates over training, and by group, with dead and saturated shares."""
        return update_figure(rows, section, [group.name for group in self.groups])

    def reading(self, rows: Sequence[Row], section: str) -> str | None:
        """The last update and |W| against the first, what is dead, and the largest activation."""
        first, last = rows[0]["values"], rows[-1]["values"]
        ratio, dead = last[f"{section}/ratio/total"], last[f"{section}/dead/total"]
        told = [] if math.isnan(ratio) else [f"the last update is {ratio:.1e} of the weights"]
        before, now = (row.get(f"{section}/activation/max", math.nan) for row in (first, last))
        if len(rows) > 1 and before > 0 and math.isfinite(now / before):
            told.append(f"the largest activation is {now / before:.2g} times the first")
        if dead > 0:
            shares = [last.get(f"{section}/dead/{layer_tag(i)}") for i in range(len(self.groups))]
            worst = max(range(len(shares)), key=lambda i: _number(shares[i]))
            told.append(f"{dead:.0%} of the units are dead, most in {self.groups[worst].name}")
        return f"{'; '.join(told)}." if told else None


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(joint_norm([x.detach() for x in tensors]))


def _number(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value


def _extreme(choose: Callable[..., float], values: Iterable[float]) -> float:
    """The smallest or largest value that is not NaN; NaN if there is none."""
    return choose((value for value in values if not math.isnan(value)), default=math.nan)


def _largest(values: Sequence[float]) -> float:
    """The largest value; NaN if one is NaN, or if there is none."""
    return float(torch.tensor(values).max()) if values else math.nan


def _dead(sites: Sequence[Site]) -> float:
    """Share of dead units of some activations; NaN without units."""
    units = sum(len(site.low) for site in sites)
    if not units:
        return math.nan
    return sum(float(dead_share(site.low, site.high)) * len(site.low) for site in sites) / units


def _bounded(sites: Sequence[Site]) -> list[Site]:
    return [site for site in sites if site.bounds is not None]


def _saturated(sites: Sequence[Site]) -> float:
    """Share of the values of bounded activations at a bound; NaN without any."""
    bounded = _bounded(sites)
    count = sum(site.count for site in bounded)
    return sum(site.at_bounds for site in bounded) / count if count else math.nan

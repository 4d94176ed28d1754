"""The search space that every rule shares, and the trials drawn from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_credit.cli.benchmark.suites import Entry

__all__ = ["CREDIT_SCALES", "LEARNING_RATES", "WEIGHT_DECAYS", "Trial", "draw_trials"]

LEARNING_RATES = (1e-5, 1e-1)
"""Smallest and largest learning rate; it is drawn log-uniformly."""
WEIGHT_DECAYS = (0.0, 1e-4, 1e-2)
CREDIT_SCALES = (0.1, 1.0, 10.0)
"""Factors on the learning rate of the units, relative to the readout.

For SGD such a factor is one on the credit. AdamW divides a factor on the credit out, so the factor
is on the learning rate, which acts under both.
"""


@dataclass(frozen=True)
class Trial:
    """A point of the search space.

    Attributes:
        study: number of the search, from 1.
        number: number of the trial in the search, from 1.
        lr: learning rate.
        weight_decay: decay of AdamW.
        credit_scale: factor on the learning rate of the units; None if it is not searched.
        knob: value of the rule's own knob; None if it has none.
    """

    study: int
    number: int
    lr: float
    weight_decay: float
    credit_scale: float | None
    knob: Any

    def overrides(self, entry: Entry) -> dict[str, Any]:
        """The arguments of ``lit-credit fit``, by dotted name."""
        arguments = dict(entry.arguments)
        groups: dict[str, Any] = dict(arguments.pop("group_options", {}))
        if entry.knob.startswith("group_options."):
            groups[entry.knob.removeprefix("group_options.")] = self.knob
        elif entry.knob:
            arguments[entry.knob] = self.knob
        if self.credit_scale not in (None, 1.0):
            rate = float(f"{self.lr * float(self.credit_scale or 1.0):.4g}")
            groups["units"] = {**groups.get("units", {}), "lr": rate}
        if groups:
            arguments["group_options"] = groups
        return {
            "model.class_path": entry.class_path,
            **{f"model.init_args.{name}": value for name, value in arguments.items()},
            "model.init_args.optimizer.class_path": "torch.optim.AdamW",
            "model.init_args.optimizer.init_args.lr": self.lr,
            "model.init_args.optimizer.init_args.weight_decay": self.weight_decay,
        }

    def columns(self, entry: Entry) -> Mapping[str, Any]:
        """The point as cells of a table."""
        return {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "credit_scale": self.credit_scale,
            "knob": f"{entry.knob}={self.knob}" if entry.knob else None,
        }


def draw_trials(entry: Entry, studies: int, trials: int) -> list[Trial]:
    """Quasi-random points of the search space; all rules get the same ones.

    A study is a Sobol sequence that is scrambled with its own fixed seed.

    Args:
        entry: the rule, which may have a knob.
        studies: number of searches.
        trials: points in a search.

    Example:
        >>> first = draw_trials(Entry("BP", "BP"), 1, 2)[0]
        >>> first.study, first.number, 1e-5 <= first.lr <= 1e-1, first.knob
        (1, 1, True, None)
    """
    from torch.quasirandom import SobolEngine

    found = []
    for study in range(1, studies + 1):
        engine: Any = SobolEngine
        draws = engine(4, scramble=True, seed=study).draw(trials).double().tolist()
        for number, (rate, decay, scale, knob) in enumerate(draws, 1):
            low, high = LEARNING_RATES
            found.append(
                Trial(
                    study,
                    number,
                    float(f"{low * (high / low) ** rate:.4g}"),
                    _one_of(WEIGHT_DECAYS, decay),
                    _one_of(CREDIT_SCALES, scale) if entry.credit_scale else None,
                    _one_of(entry.values, knob) if entry.knob else None,
                )
            )
    return found


def _one_of(values: Any, place: float) -> Any:
    return values[min(int(place * len(values)), len(values) - 1)]

"""The last lines of ``lit-credit fit``: where the run is, what it reached, what to type next."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lit_credit.callbacks import FiniteGuard, MetricHistory
from lit_credit.callbacks.base import Diagnostic
from lit_credit.headlines import Headline
from lit_credit.protocols import ComparedProtocol, asked
from lit_credit.rules import CreditRule
from lit_credit.runs.history import Row
from lit_credit.runs.run_checkpoints import run_folders
from lit_credit.trainer.trainer import callbacks_of, is_fast_dev_run

__all__ = ["ending"]

_SHOWN = 3


def ending(trainer: Trainer, rule: CreditRule) -> str:
    """The lines; empty for a process that is not the first, and for a run that writes no files.

    Args:
        trainer: the Trainer after its fit.
        rule: the rule that it has trained.
    """
    folder = next(iter(run_folders(trainer)), None)
    if not trainer.is_global_zero or is_fast_dev_run(trainer) or folder is None:
        return ""
    if not (folder / "config.yaml").is_file():
        return ""
    root = Path(trainer.default_root_dir)
    above = shlex.quote(str(root if root.resolve() in folder.resolve().parents else folder))
    diagnose = f"lit-credit diagnose --config {shlex.quote(str(folder / 'config.yaml'))}"
    if not any(isinstance(callback, Diagnostic) for callback in callbacks_of(trainer)):
        diagnose += " --trainer.callbacks+ ResidualNorms"
    lines = [("Run:", str(folder)), *(("Metrics:", text) for text in _metrics(trainer, rule))]
    lines += [("Note:", text) for text in _diverged(trainer)]
    lines += [("Next:", f"tensorboard --logdir {above}"), ("", f"lit-credit compare {above}")]
    return "\n".join(f"{head:<8} {text}" for head, text in [*lines, ("", diagnose)])


def _metrics(trainer: Trainer, rule: CreditRule) -> list[str]:
    """A line of the metrics of validation and test, if there are any."""
    rows: Sequence[Row] = next(
        (c.history.rows for c in callbacks_of(trainer) if isinstance(c, MetricHistory)), ()
    )
    declared = asked(rule.task, ComparedProtocol.headline, ())
    better = {f"{h.tag or h.name}": h.better for h in declared if isinstance(h, Headline)}
    last = rows[-1]["values"] if rows else {}
    names = [name for name in better if f"val/{name}" in last]
    texts = [_reached(f"val/{name}", better[name], rows) for name in names]
    added = [tag for tag in last if tag.removeprefix("val/") not in better]
    texts += [_reached(tag, "neither", rows) for tag in added[:_SHOWN] if texts]
    texts = texts or [_reached(tag, "neither", rows) for tag in list(last)[:_SHOWN]]
    metrics: dict[str, Any] = trainer.callback_metrics
    tested = [f"test/{name}" for name in better if f"test/{name}" in metrics]
    texts += [f"{tag} {float(metrics[tag]):.4g}" for tag in tested]
    return [", ".join(texts)] if texts else []


def _diverged(trainer: Trainer) -> list[str]:
    """A line on losses that are not finite at the end, and how to find the cause."""
    losses = {tag: float(x) for tag, x in trainer.callback_metrics.items() if "loss" in tag}
    lost = [tag for tag, loss in losses.items() if not math.isfinite(loss)]
    if not lost:
        return []
    text = f"the run diverged: {', '.join(lost[:_SHOWN])} not finite."
    if not any(isinstance(callback, FiniteGuard) for callback in callbacks_of(trainer)):
        text += " --trainer.callbacks+ FiniteGuard names the step and the unit where it begins."
    return [text]


def _reached(tag: str, better: str, rows: Sequence[Row]) -> str:
    """The last value of a metric, and the best one if that is another."""
    last = float(rows[-1]["values"][tag])
    text = f"{tag} {last:.4g}"
    found = [(float(row["values"].get(tag, math.nan)), row["epoch"]) for row in rows]
    found = [(value, epoch) for value, epoch in found if not math.isnan(value)]
    if better == "neither" or not found:
        return text
    choose = max if better == "up" else min
    best, epoch = choose(found, key=lambda pair: pair[0])
    return text if best == last else f"{text} (best {best:.4g} at epoch {epoch})"

"""Make the picture of README.md from the nine runs of `make demo`.

``python tools/front_picture.py runs/demo docs/images/front.png``
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lit_credit.headlines import Look
from lit_credit.rules import BP, DFA, FA
from lit_credit.runs.history import read_history

_INK, _GRID = "#262626", "#e2e2e2"


def curves(runs: Path, rule: str, history: str, tag: str) -> np.ndarray:
    """The values of a tag, (runs, epochs)."""
    paths = sorted(runs.glob(f"{rule}/seed_*/{history}.jsonl"))
    if not paths:
        raise FileNotFoundError(f"{runs}/{rule} has no {history}.jsonl: run `make demo` first")
    return np.array([[row["values"][tag] for row in read_history(path)] for path in paths])


def draw(ax: Axes, values: np.ndarray, look: Look, label: str, lift: float) -> None:
    """The runs of a rule as thin lines, their mean as a thick one with its name."""
    log = ax.get_yscale() == "log"
    mean = np.exp(np.log(values).mean(0)) if log else values.mean(0)
    ax.plot(values.T, color=look.color, linewidth=1, alpha=0.35)
    ax.plot(mean, color=look.color, linewidth=3.2)
    ax.annotate(
        label,
        (len(mean) - 1, mean[-1]),
        (9, lift),
        textcoords="offset points",
        va="center",
        color=look.color,
        fontsize=15,
        fontweight="bold",
        annotation_clip=False,
    )


def front_picture(runs: Path, out: Path) -> None:
    """Draw the accuracy on the left, and the residual stream of the same runs on the right."""
    figure = Figure(figsize=(12.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    right.set_yscale("log")
    for rule, lift in ((BP, 7), (FA, -8), (DFA, 0)):
        name = rule.__name__
        accuracy = curves(runs, name, "metrics", "val/accuracy")
        draw(left, accuracy, rule.look, f"{name}  {accuracy[:, -1].mean():.2f}", lift)
        stream = curves(runs, name, "residual_norms", "residual/norm/L04")
        growth = np.exp(np.log(stream[:, -1] / stream[:, 0]).mean())
        times = f"{growth:.1f}" if growth < 100 else f"{round(growth, -3):,.0f}"
        draw(right, stream, rule.look, f"{name}  \N{MULTIPLICATION SIGN}{times}", -lift)
    left.set_ylim(0, 1.03)
    for ax, title, unit in (
        (left, "Accuracy: DFA seems to learn", "fraction of digits correct"),
        (right, "The residual stream of the same runs", "size at the last layer"),
    ):
        ax.set_title(title, loc="left", fontsize=18, fontweight="bold", color=_INK, pad=12)
        ax.set_xlabel("epochs of training", fontsize=14, color=_INK)
        ax.set_ylabel(unit, fontsize=14, color=_INK)
        ax.tick_params(labelsize=13, colors=_INK)
        ax.grid(color=_GRID)
        ax.set_xlim(0, None)
        ax.spines[["top", "right"]].set_visible(False)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    front_picture(Path(sys.argv[1]), Path(sys.argv[2]))

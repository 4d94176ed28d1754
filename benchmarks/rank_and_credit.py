r"""Does the rank of the credit predict the accuracy better than its cosine does?

    python benchmarks/rank_and_credit.py runs/rank_and_credit/cifar10.csv --figure figure.png

Reads the runs of ``configs/rank_and_credit`` (docs/rank_and_credit.md has the command). Prints the
mean over seeds of each setting, in markdown, and Spearman's correlation over the settings of FA and
DFA between the accuracy on the test data and each measure: at the end of training, and at its
middle. A measure is the mean over units; that of the credit leaves out the last unit, whose credit
comes straight from the error of ten classes. The interval is the bootstrap's over settings
(10,000 draws, 95 %).
"""

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from lit_credit.plotting._style import BLUE, GREY, INK, ORANGE, SMALL, dress
from lit_credit.runs.history_rows import read_history

MEASURES = {
    "cosine": ("credit_alignment", "credit/cosine", 1),
    "rho": ("credit_function", "function/rho", 1),
    "nudging ratio": ("credit_function", "function/ratio", 1),
    "rank of the credit": ("signal_rank", "rank/credit", 1),
    "rank of the gradients": ("signal_rank", "rank/gradient", 0),
    "rank of the updates": ("signal_rank", "rank/update", 0),
    "rank of the activations": ("signal_rank", "rank/activation", 0),
}
"""Name to history, tag, and how many of the last units are left out."""
DRAWN = ("cosine", "nudging ratio", "rank of the credit", "rank of the activations")
SETTING = ("case", "model.class_path", "optimizer", "norm")


def read_runs(table: Path) -> list[dict[str, Any]]:
    """The settings, the accuracy and the measures of each run."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "finished"]
    return [
        {
            "case": row["case"],
            "model.class_path": row["model.class_path"],
            "optimizer": row["model.init_args.optimizer.class_path"].rpartition(".")[2],
            "norm": row["model.init_args.net.init_args.norm"] or "none",
            "accuracy": float(row["test/accuracy"]),
            **{(name, "end"): measured(row["folder"], name, -1) for name in MEASURES},
            **{(name, "middle"): measured(row["folder"], name, -2) for name in MEASURES},
        }
        for row in rows
    ]


def measured(folder: str, name: str, place: int) -> float:
    """A measure of a run: the mean over units of a row of its history."""
    history, tag, left_out = MEASURES[name]
    (path,) = Path(folder).rglob(f"{history}.jsonl")
    rows = read_history(path)
    values = [value for key, value in rows[place]["values"].items() if key.startswith(f"{tag}/")]
    return fmean(values[: len(values) - left_out])


def settings_of(runs: Sequence[Mapping[Any, Any]]) -> list[dict[Any, Any]]:
    """Means over the seeds of each setting, with n and the sd of the accuracy."""
    groups: dict[tuple[str, ...], list[Mapping[Any, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run[key] for key in SETTING), []).append(run)
    found = []
    for names, own in groups.items():
        numbers = {key: fmean(run[key] for run in own) for key in own[0] if key not in SETTING}
        sd = stdev(run["accuracy"] for run in own) if len(own) > 1 else math.nan
        found.append({**dict(zip(SETTING, names, strict=True)), **numbers, "n": len(own), "sd": sd})
    return found


def print_settings(settings: Sequence[Mapping[Any, Any]]) -> None:
    print("| net | rule | optimizer | norm | n | accuracy |", *(f" {name} |" for name in MEASURES))
    print("|---|---|---|---|---|---|" + "---|" * len(MEASURES))
    for row in settings:
        names = " | ".join(row[key] for key in SETTING)
        values = " | ".join(f"{row[name, 'end']:.3g}" for name in MEASURES)
        print(f"| {names} | {row['n']} | {row['accuracy']:.3f} ± {row['sd']:.3f} | {values} |")


def print_correlations(settings: Sequence[Mapping[Any, Any]]) -> None:
    groups = {"all": list(settings)}
    for key in ("case", "model.class_path"):
        for value in dict.fromkeys(row[key] for row in settings):
            groups[value] = [row for row in settings if row[key] == value]
    print("\n| measure | when |", *(f" {name} ({len(own)}) |" for name, own in groups.items()))
    print("|---|---|" + "---|" * len(groups))
    for name in MEASURES:
        for when in ("middle", "end"):
            cells = [correlation(own, name, when) for own in groups.values()]
            print(f"| {name} | {when} | {' | '.join(cells)} |")


def print_differences(settings: Sequence[Mapping[Any, Any]]) -> None:
    """How much better the cosine predicts than each rank does, on the same draws."""
    cosine = drawn_correlations(settings, "cosine", "end")
    print("\n| Spearman of the cosine, minus that of | difference |\n|---|---|")
    for name in (key for key in MEASURES if key.startswith("rank")):
        found = cosine - drawn_correlations(settings, name, "end")
        print(f"| {name} | {interval(found)} |")


def correlation(settings: Sequence[Mapping[Any, Any]], name: str, when: str) -> str:
    return interval(drawn_correlations(settings, name, when))


def interval(found: Any) -> str:
    low, high = np.nanquantile(found[1:], [0.025, 0.975])
    return f"{found[0]:+.2f} [{low:+.2f}, {high:+.2f}]"


def drawn_correlations(settings: Sequence[Mapping[Any, Any]], name: str, when: str) -> Any:
    """Spearman's correlation of the settings, then of 10,000 draws with replacement."""
    accuracy, values = (np.array([row[k] for row in settings]) for k in ("accuracy", (name, when)))
    n = len(settings)
    draws = np.random.default_rng(0).integers(n, size=(10_000, n))
    draws = np.concatenate([np.arange(n)[None], draws])
    a, b = (rankdata(found[draws], axis=1) for found in (accuracy, values))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    sizes = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / sizes


def draw(settings: Sequence[Mapping[Any, Any]]) -> Figure:
    """The accuracy over each of four measures: a dot is a setting, the mean of its seeds."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    for ax, name in zip(figure.subplots(1, len(DRAWN), sharey=True), DRAWN, strict=True):
        dress(ax, "", "accuracy on the test data" if name == DRAWN[0] else "", name)
        draw_panel(ax, settings, name)
        learned = [row for row in settings if row["model.class_path"] != "BP"]
        text = correlation(learned, name, "end").partition(" ")[0]
        ax.set_title(f"Spearman {text}", loc="left", fontsize=SMALL + 1, color=INK)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=7,
        frameon=False,
        fontsize=SMALL,
    )
    return figure


def draw_panel(ax: Axes, settings: Sequence[Mapping[Any, Any]], name: str) -> None:
    colors = {"BP": GREY, "FA": BLUE, "DFA": ORANGE}
    for row in settings:
        color = colors[row["model.class_path"]]
        filled = row["norm"] != "none"
        ax.scatter(
            row[name, "end"],
            row["accuracy"],
            s=70 if row["optimizer"] == "MuonAdamW" else 28,
            marker="s" if row["case"] == "mlp" else "o",
            facecolor=color if filled else "none",
            edgecolor=color,
            linewidth=1.6,
        )
    for text, style in (
        *((rule, {"color": color}) for rule, color in colors.items()),
        ("MLP (else residual)", {"marker": "s", "color": INK}),
        ("Muon (small: AdamW)", {"s": 70, "color": INK}),
        ("no normalisation", {"facecolor": "none", "edgecolor": INK}),
    ):
        ax.scatter([], [], label=text, **style)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    settings = settings_of(read_runs(options.table))
    print_settings(settings)
    learned = [row for row in settings if row["model.class_path"] != "BP"]
    print_correlations(learned)
    print_differences(learned)
    if options.figure:
        draw(settings).savefig(options.figure, dpi=150)


if __name__ == "__main__":
    main()

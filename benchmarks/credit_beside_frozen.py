r"""What the credit does in the residual study, beside accuracy: direction, function, rank, steps.

    python benchmarks/credit_beside_frozen.py runs/residual_30 --figure figure.png

Reads runs of ``configs/residual_explosion`` with ``CreditFunction``, ``StepQuality`` and
``SignalRank`` in folders ``RULE/SEED`` (docs/residual_explosion.md has the command). Prints a
markdown table, mean and sample standard deviation over seeds at the end of training: over the
blocks, and of the embedding. Draws the measures unit by unit.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.figure import Figure

from lit_credit.plotting._style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SMALL, dress
from lit_credit.runs.history_rows import read_history

RULES = {
    "bp": ("BP", GREY),
    "dfa_penalty": ("DFA + penalty", GREEN),
    "dfa": ("DFA", ORANGE),
    "dfa_frozen": ("blocks frozen, embedding by DFA", PURPLE),
    "frozen": ("blocks frozen, embedding by BP", BLUE),
}
COLUMNS = {
    "cosine": ("credit_alignment", "credit/cosine/L{}"),
    "rho": ("credit_function", "function/rho/L{}"),
    "nudging": ("credit_function", "function/nudging/L{}"),
    "nudging of the gradient": ("credit_function", "function/nudging_exact/L{}"),
    "rank of the outputs": ("signal_rank", "rank/activation/L{}"),
    "rank of the credit": ("signal_rank", "rank/credit/L{}"),
}
WHOLE = {
    "accuracy": ("metrics", "val/accuracy"),
    "step / BP step": ("step_quality", "step/ratio"),
}
LABELS = {"nudging": "change of the loss; below 0 is better"}
UNITS = 5


def last(folder: Path, history: str, tag: str) -> float:
    """The last value of a tag in a run; NaN if it has none."""
    paths = sorted(folder.rglob(f"{history}.jsonl"))
    if not paths:
        return math.nan
    value = read_history(paths[0])[-1]["values"].get(tag)
    return math.nan if value is None else float(value)


def by_unit(folder: Path, name: str) -> list[float]:
    history, tag = COLUMNS[name]
    return [last(folder, history, tag.format(f"{unit:02d}")) for unit in range(UNITS)]


def text(values: Sequence[float]) -> str:
    if any(map(math.isnan, values)) or not values:
        return "n/a"
    sd = stdev(values) if len(values) > 1 else math.nan
    return f"{fmean(values):.3g} ± {sd:.1g}"


def print_table(runs: dict[str, list[Path]]) -> None:
    heads = [*WHOLE, *(f"{name}, embedding / blocks" for name in COLUMNS)]
    print("| rule | n |", *(f" {head} |" for head in heads))
    print("|---|---|" + "---|" * len(heads))
    for rule, folders in runs.items():
        cells = [text([last(folder, *place) for folder in folders]) for place in WHOLE.values()]
        for name in COLUMNS:
            found = [by_unit(folder, name) for folder in folders]
            cells.append(f"{text([v[0] for v in found])} / {text([fmean(v[1:]) for v in found])}")
        print(f"| {RULES[rule][0]} | {len(folders)} | {' | '.join(cells)} |")


def draw(runs: dict[str, list[Path]]) -> Figure:
    """Cosine, rho, nudging and the rank of the outputs, unit by unit: a line is a run."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    names = ("cosine", "rho", "nudging", "rank of the outputs")
    for ax, name in zip(figure.subplots(1, len(names)), names, strict=True):
        dress(ax, name.capitalize(), LABELS.get(name, ""), "")
        for rule, folders in runs.items():
            label, color = RULES[rule]
            for index, folder in enumerate(folders):
                values = by_unit(folder, name)
                shown = {"label": label} if not index else {}
                ax.plot(range(UNITS), values, color=color, marker="o", markersize=4, **shown)
        ax.set_xticks(range(UNITS), ["embed", *map(str, range(UNITS - 1))])
        ax.set_xlabel("unit: embedding, blocks 0 to 3", fontsize=SMALL, color=INK)
        if name == "rank of the outputs":
            ax.set_yscale("log")
        else:
            ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=SMALL
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    found = {rule: sorted((options.runs / rule).glob("*")) for rule in RULES}
    runs = {
        rule: [f for f in folders if list(f.rglob("metrics.jsonl"))]
        for rule, folders in found.items()
    }
    runs = {rule: folders for rule, folders in runs.items() if folders}
    print_table(runs)
    if options.figure:
        draw(runs).savefig(options.figure, dpi=150)


if __name__ == "__main__":
    main()

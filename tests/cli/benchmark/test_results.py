"""Tables, flags and figures of metrics of any direction and data, and the choice of a study."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba

from lit_credit.cli.benchmark.choice import Place, median_best
from lit_credit.cli.benchmark.protocol import _without_row
from lit_credit.cli.benchmark.results import Results
from lit_credit.cli.benchmark.search import Trial
from lit_credit.cli.benchmark.suites import Entry, read_suite
from lit_credit.cli.benchmark.tables import flags, remarks
from lit_credit.plotting._style import BLUE, INK, ORANGE

FILLED = {"study": 1, "trial": 1, "lr": 1e-3, "weight_decay": 0.0, "credit_scale": 1.0}
FILLED |= {"knob": None, "trials": 5, "diverged": 0, "failed": 0, "cpu_seconds": 1.0}
FILLED |= {"peak_memory": 1.0, "config": "x"}
LOSSES = {"BP": 1.5, "Good": 1.9, "FrozenUnits": 2.5, "Same": 2.5, "Bad": 3.0}


def rows(metric, means, task="t", data="val", spread=0.01):
    """Three seeds per rule; ``spread`` times the seed, more for later rules, is added."""
    found = []
    for index, (rule, mean) in enumerate(means.items()):
        for seed in (1, 2, 3):
            value = mean + spread * (index + 1) * (seed - 2)
            own = {"task": task, "rule": rule, "seed": seed, **FILLED}
            other = "test" if data == "val" else "val"
            found.append({**own, f"{data}/{metric}": value, f"{other}/{metric}": None})
    return found


def flags_of(results):
    return {row.rule: flags(row) for row in results.table}


@pytest.mark.parametrize("metric", ["loss", "id_error", "perplexity", "bits_per_character", "mae"])
def test_of_a_metric_that_is_better_if_small_the_worse_than_frozen_do_not_use_depth(metric):
    results = Results("s", metric, rows(metric, LOSSES), better="down")
    assert [row.rule for row in results.table] == ["BP", "Good", "FrozenUnits", "Same", "Bad"]
    good = {rule: [] for rule in ("BP", "Good", "FrozenUnits")}
    assert flags_of(results) == {**good, "Same": ["depth"], "Bad": ["depth"]}
    bad = next(row for row in results.table if row.rule == "Bad")
    assert (bad.to_bp.mean, bad.to_frozen.mean) == pytest.approx((1.5, 0.5))
    printed = str(results)
    assert f"A small {metric} is better: a negative difference is a gain." in printed
    assert f"Flag depth: the {metric} is not better than that of frozen units." in printed


def test_of_another_metric_that_is_better_if_large_a_small_gain_uses_depth():
    """The published threshold, .02, is one of accuracies."""
    means = {"BP": 0.52, "FrozenUnits": 0.51, "Bad": 0.50}
    of_r2 = Results("s", "r2", rows("r2", means, spread=0.001), better="up")
    assert flags_of(of_r2) == {"BP": [], "FrozenUnits": [], "Bad": ["depth"]}
    assert "is better: a negative" not in str(of_r2)
    for metric in ("accuracy", "accuracy/ood"):
        of_accuracy = Results("s", metric, rows(metric, means, spread=0.001))
        assert flags_of(of_accuracy) == {"BP": ["depth"], "FrozenUnits": [], "Bad": ["depth"]}
        assert "Flag depth" not in str(of_accuracy)


def test_a_run_that_diverged_raises_depth_only_if_it_is_known_to_be_worse():
    lost = {"BP": 1.5, "FrozenUnits": 2.5, "Infinite": math.inf, "Undefined": math.nan}
    found = flags_of(Results("s", "loss", rows("loss", lost, spread=0.0)))
    assert (found["Infinite"], found["Undefined"]) == (["depth"], [])


def test_the_figure_of_a_loss_paints_the_bad_rule_orange_and_keeps_names_apart():
    figure = Results("s", "loss", rows("loss", LOSSES)).figure("t")
    metric = figure.axes[0]
    names = [label.get_text() for label in metric.get_yticklabels()]
    colors = [dot.get_facecolor() for dot in metric.collections]
    expected = {"BP": INK, "FrozenUnits": INK, "Good": BLUE, "Same": ORANGE, "Bad": ORANGE}
    assert names == ["Bad", "Same", "FrozenUnits", "Good", "BP"]
    for name, color in zip(names, colors, strict=True):
        assert tuple(color[0]) == pytest.approx(to_rgba(expected[name]))
    assert metric.get_xlabel() == "loss (small is better), validation data"
    assert "validation data, by which the trials were chosen" in figure.get_supxlabel()


@pytest.mark.parametrize("frozen", [1.501, 1.499, 1.5, 2.5, 0.5])
@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_the_names_of_the_two_lines_do_not_overlap(metric, frozen):
    means = {"BP": 1.5, "FrozenUnits": frozen}
    figure = Results("s", metric, rows(metric, means, data="test")).figure("t")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    first, second = (text.get_window_extent(renderer) for text in figure.axes[0].texts)
    assert not first.overlaps(second)


def test_each_task_has_its_own_data():
    """Task a was tested; task b has no test data."""
    means = {"BP": 0.9, "FrozenUnits": 0.5}
    tested = rows("accuracy", means, "a", "test")
    validated = rows("accuracy", {"BP": 0.8, "FrozenUnits": 0.4}, "b")
    results = Results("s", "accuracy", [*tested, *validated])
    assert {(row.task, row.rule): round(row.mean, 6) for row in results.table} == {
        ("a", "BP"): 0.9,
        ("a", "FrozenUnits"): 0.5,
        ("b", "BP"): 0.8,
        ("b", "FrozenUnits"): 0.4,
    }
    line = "The accuracy is of the validation data, by which the trials were chosen"
    for text in (str(results), results.to_markdown(), results.to_latex()):
        assert text.count("accuracy (validation)") == text.count(line) == 1
        assert text.index("accuracy (validation)") > text.index("0.900")
        assert "Fewer than three" not in text
        assert text.count("Intervals: 95 %") == 2
    assert results.figure("a").axes[0].get_xlabel() == "accuracy"
    assert results.figure("b").axes[0].get_xlabel() == "accuracy, validation data"
    assert "validation" not in results.figure("a").get_supxlabel()


@pytest.mark.parametrize(
    ("means", "spread", "seeds", "expected"),
    [
        ({"BP": 0.9, "DFA": 0.5}, 0.01, 3, "Intervals: 95 %"),
        ({"BP": 0.9, "DFA": 0.5}, 0.01, 2, "Fewer than three pairs of seeds"),
        ({"BP": 0.9, "DFA": 0.5}, 0.0, 3, "they are equal for all seeds"),
        ({"BP": 0.9, "DFA": math.nan}, 0.01, 3, "some run has no finite value"),
        ({"BP": 0.9}, 0.01, 3, "there are no pairs of runs"),
        ({"DFA": 0.9}, 0.01, 3, "there are no pairs of runs"),
    ],
)
def test_the_line_on_intervals_gives_the_reason(means, spread, seeds, expected):
    found = [row for row in rows("accuracy", means, spread=spread) if row["seed"] <= seeds]
    assert expected in remarks(Results("s", "accuracy", found).table)[0]


def test_a_metric_of_unknown_direction_is_refused():
    with pytest.raises(ValueError, match=r"`metric` is 'mae'.* Expected `better`"):
        Results("s", "mae", rows("mae", LOSSES))


# The choice


@dataclass
class Ran:
    """A finished trial, or one that failed: its result is None."""

    folder: Path
    values: dict[str, float] | None

    @property
    def name(self):
        return self.folder.name

    @property
    def log(self):
        return self.folder / "log.txt"

    def result(self):
        return None if self.values is None else {"step": 10, "values": self.values}


def place_of(folder, studies):
    """A place of studies with trials: values of each trial, None of one that failed."""
    trials, cells = [], []
    for study, found in enumerate(studies, 1):
        for number, values in enumerate(found, 1):
            trials.append(Trial(study, number, 1e-3, 0.0, None, None))
            ran = Ran(folder / f"study_{study}_trial_{number}", values)
            ran.folder.mkdir()
            ran.log.write_text("RuntimeError: not today\n")
            row = {"step": 10, "epoch": 1, "name": "metrics", "values": values or {}}
            (ran.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
            cells.append(ran)
    return Place("t", Entry("BP", "BP"), trials, cells)


def values(metric, *found, loss=1.0):
    return [
        None if x is None else {f"val/{metric}": x, "val/loss": loss if math.isfinite(x) else x}
        for x in found
    ]


def chosen(folder, better, studies, metric="perplexity"):
    suite = replace(read_suite("digits"), metric=metric, better=better)
    place = place_of(folder, studies)
    trial = median_best(suite, place)
    lines = [] if trial else _without_row(suite, [place], [])
    return (trial.study, trial.number) if trial else None, lines


@pytest.mark.parametrize(("better", "expected"), [("down", (3, 2)), ("up", (2, 1))])
def test_the_direction_decides_which_trial_is_best(tmp_path, better, expected):
    # Best if small: 10, 30, 20. Best if large: 90, 50, 40.
    found = [[90.0, 10.0], [50.0, 30.0], [40.0, 20.0]]
    studies = [values("perplexity", *one) for one in found]
    assert chosen(tmp_path, better, studies)[0] == expected


def test_of_equal_metrics_the_smaller_loss_decides(tmp_path):
    studies = [values("id_error", 0.5, loss=2.0) + values("id_error", 0.5, loss=1.0)]
    assert chosen(tmp_path, "down", studies, "id_error")[0] == (1, 2)


@pytest.mark.parametrize(
    ("bests", "expected"),
    [
        ((0.97, 0.90, 0.1), 2),
        ((0.97, 0.90, math.nan), 2),
        ((0.97, None, 0.1), 3),
        ((0.97, math.nan, math.nan), None),
        ((None, None, 0.97), None),
        ((0.97, None), None),
        ((0.97, 0.90), 2),
        ((math.inf, 0.9, 0.8), 3),
        ((None, math.nan, None), None),
    ],
)
@pytest.mark.parametrize("better", ["up", "down"])
def test_a_study_without_a_trial_that_has_learned_is_the_worst(tmp_path, better, bests, expected):
    """An infinite metric is not learned. Negated values rank the other way round."""
    sign = 1 if better == "up" else -1
    studies = [values("x", None if best is None else sign * best) for best in bests]
    found, _ = chosen(tmp_path, better, studies, "x")
    assert found == (None if expected is None else (expected, 1))


def test_the_line_says_which_studies_have_no_trial_that_has_learned(tmp_path):
    nan = math.nan
    for index, (bests, expected) in enumerate(
        [
            ((0.9, nan, nan), "no trial of the median study has learned (of 3 studies, these"),
            ((nan, nan), "t, BP: no row, because no trial has learned. study_1_trial_1 ends with"),
            ((0.9, None, nan), "have no such trial: 2, 3). "),
            ((0.9, None, nan), "log.txt ends: RuntimeError: not today"),
        ]
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        studies = [values("x", best) for best in bests]
        (line,) = chosen(folder, "up", studies, "x")[1]
        assert expected in line

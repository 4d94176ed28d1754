"""Small benchmarks, run to the end, and gone on with."""

import csv
import json
import math
import re
from statistics import fmean, median, stdev

import pytest
import yaml

from lit_credit.cli import main
from lit_credit.cli.benchmark import benchmark
from lit_credit.cli.benchmark.protocol import _other_protocol
from lit_credit.cli.benchmark.results import Results
from lit_credit.cli.benchmark.suites import read_suite
from lit_credit.cli.benchmark.summaries import read_rows

NET = {"class_path": "MLP", "init_args": {"in_features": 64, "hidden": [16, 16]}}
SUITE = {
    "studies": 3,
    "trials": 2,
    "seeds": [1, 2, 3],
    "rules": ["BP", "FrozenUnits", "DFA"],
    "tasks": {
        "mlp": {
            "model": {"init_args": {"task": "Classification", "net": NET}},
            "data": {"class_path": "Digits", "init_args": {"batch_size": 64}},
            "trainer": {"accelerator": "cpu", "max_epochs": 1, "limit_train_batches": 8},
        }
    },
}
OWN = """
from lit_credit.rules import DFA

class Mine(DFA):
    pass

class Broken(DFA):
    def surrogate(self, batch):
        raise RuntimeError("not today")
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results of a small suite, its folder, and what a second call prints and returns."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "small.yaml").write_text(yaml.safe_dump(SUITE))
    return benchmark(folder / "small.yaml", out=folder / "out"), folder


def test_every_run_is_a_row_and_every_trial(ran):
    results, folder = ran
    assert {(r["rule"], r["seed"]) for r in results.rows} == {
        (rule, seed) for rule in SUITE["rules"] for seed in (1, 2, 3)
    }
    assert len(results.trials) == 3 * 6
    written = read_rows(folder / "out" / "small" / "runs.csv")
    assert [float(r["test/accuracy"]) for r in written] == pytest.approx(
        [r["test/accuracy"] for r in results.rows], abs=1e-7
    )


def test_the_choice_is_the_best_of_the_median_study(ran):
    results, _ = ran
    for rule in SUITE["rules"]:
        trials = [t for t in results.trials if t["rule"] == rule]
        studies = {t["study"]: [] for t in trials}
        for t in trials:
            studies[t["study"]].append((t["val/accuracy"], -t["val/loss"], t["trial"]))
        bests = sorted((max(found), study) for study, found in studies.items())
        (_, _, trial), study = bests[1]
        row = next(r for r in results.rows if r["rule"] == rule)
        assert (row["study"], row["trial"]) == (study, trial)
        chosen = next(t for t in trials if (t["study"], t["trial"]) == (study, trial))
        assert all(row[key] == chosen[key] for key in ("lr", "weight_decay", "credit_scale"))


def test_only_the_seeds_of_the_choice_are_tested(ran):
    _, folder = ran
    tested = [path.relative_to(folder) for path in folder.rglob("test.jsonl")]
    assert len(tested) == 9
    assert all("final" in path.parts for path in tested)


def test_means_and_differences_are_paired_by_seed(ran):
    results, _ = ran
    values = {
        rule: [r["test/accuracy"] for r in results.rows if r["rule"] == rule]
        for rule in SUITE["rules"]
    }
    for row in results.table:
        own = values[row.rule]
        assert (row.mean, row.sd) == pytest.approx((fmean(own), stdev(own)))
        for other, found in (("BP", row.to_bp), ("FrozenUnits", row.to_frozen)):
            if other == row.rule:
                assert math.isnan(found.mean)
            else:
                pairs = [a - b for a, b in zip(own, values[other], strict=True)]
                assert (found.n, found.mean) == (3, pytest.approx(fmean(pairs)))
    assert [row.mean for row in results.table] == sorted(r.mean for r in results.table)[::-1]


def test_diagnostics_stand_beside_the_metric(ran):
    results, _ = ran
    rows = {row.rule: row.measures for row in results.table}
    assert rows["BP"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert abs(rows["DFA"]["cosine"]) < 0.9
    assert rows["FrozenUnits"]["growth"] == pytest.approx(1)


def test_time_and_memory_are_medians_of_the_trials(ran):
    results, _ = ran
    for row in results.table:
        own, bp = (
            median(t["cpu_seconds"] for t in results.trials if t["rule"] == rule)
            for rule in (row.rule, "BP")
        )
        assert row.cpu == pytest.approx(own / bp)


def test_the_same_call_goes_on_and_changes_nothing(ran, capsys):
    results, folder = ran
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.jsonl")}
    again = benchmark(folder / "small.yaml", out=folder / "out")
    assert again.rows == results.rows
    assert re.search("18 runs planned in .* s, 18 of them finished", capsys.readouterr().out)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.jsonl")}


def test_another_budget_in_the_same_folder_is_refused(ran):
    _, folder = ran
    other = {**SUITE, "tasks": {"mlp": {**SUITE["tasks"]["mlp"], "data": "Digits"}}}
    (folder / "other").mkdir()
    (folder / "other" / "small.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(ValueError, match=r"holds a run with data.*--out"):
        benchmark(folder / "other" / "small.yaml", out=folder / "out")


def test_the_figure_has_a_row_per_rule_and_a_panel_per_question(ran):
    results, _ = ran
    figure = results.figure("mlp")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [row.rule for row in results.table][::-1]
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "Accuracy",
        "Credit",
        "Stream",
        "Cost",
    ]


def test_a_rule_of_ones_own_stands_beside_ours(ran, tmp_path, monkeypatch, capsys):
    """By the command line; the rows that ship with lit_credit are those of the run above."""
    _, folder = ran
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_rules.py").write_text(OWN)
    small = {**SUITE, "studies": 1, "seeds": [1, 2]}
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "small.yaml").write_text(yaml.safe_dump(small))
    monkeypatch.setattr("lit_credit.cli.benchmark.suites._HERE", tmp_path)
    monkeypatch.setattr("lit_credit.cli.benchmark.summaries._SHIPPED", folder / "shipped")
    (folder / "shipped").mkdir()
    (folder / "out" / "small" / "runs.csv").rename(folder / "shipped" / "small.csv")
    words = ["--suite", "small", "--rule", "my_rules.Mine", "--rule", "my_rules.Broken"]
    words += ["--knob", "normalize_credit=[false,true]", "--out", "out"]
    assert main(["benchmark", *words]) == 1
    printed = capsys.readouterr().out
    told = printed[printed.index("small, mlp\n") :]
    assert "mlp, Broken: no row, because no trial has learned." in told
    assert "not today" in told
    assert "mlp, Broken: no row" in (tmp_path / "out" / "small" / "table.md").read_text()
    table = printed[printed.index("small, mlp\n") :].splitlines()[2:6]
    names = {line.split("  ")[0] for line in table}
    assert names == {"Mine", "BP", "FrozenUnits", "DFA (shipped)"}
    with (tmp_path / "out" / "small" / "trials.csv").open() as file:
        statuses = {row["rule"]: row["status"] for row in csv.DictReader(file)}
    assert (statuses["Mine"], statuses["Broken"]) == ("finished", "failed")


def own_suite(folder):
    """A small suite, and a module of own rules beside it."""
    (folder / "two_rules.py").write_text(OWN + "\nclass Second(Mine):\n    pass\n")
    small = {**SUITE, "studies": 1, "trials": 1, "seeds": [1, 2], "rules": ["BP"]}
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    return folder / "small.yaml"


@pytest.mark.slow
def test_rules_of_an_earlier_call_keep_their_rows_and_changed_code_is_told(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(str(tmp_path))
    suite, out = own_suite(tmp_path), tmp_path / "out"
    benchmark(suite, ["two_rules.Mine"], out)
    both = benchmark(suite, ["two_rules.Second"], out)
    assert {row.rule for row in both.table} == {"BP", "FrozenUnits", "Mine", "Second"}
    assert both.notes == ["Measured by an earlier call with this --out: Mine."]
    assert {row["rule"] for row in read_rows(out / "small" / "trials.csv")} == {
        "BP",
        "FrozenUnits",
        "Mine",
        "Second",
    }
    (tmp_path / "two_rules.py").write_text(OWN.replace("pass", "lr_factor = 2"))
    (out / "small" / "mlp" / "Second").rename(tmp_path / "removed")
    third = benchmark(suite, ["two_rules.Mine"], out)
    (note,) = third.notes
    assert re.search(r"two_rules\.py has changed since 3 finished runs, .*--out", note)
    assert note in str(third)
    assert {row.rule for row in third.table} == {"BP", "FrozenUnits", "Mine"}


def test_a_metric_of_the_validation_is_shown_if_nothing_was_tested():
    rows = [
        {"task": "t", "rule": rule, "seed": seed, "val/loss": value, "test/loss": ""}
        for rule, value in (("BP", 1.0), ("DFA", 2.0))
        for seed in (1, 2)
    ]
    assert [(r.rule, r.mean) for r in Results("s", "loss", rows).table] == [("BP", 1), ("DFA", 2)]


def row(rule, seed, value):
    return {"task": "t", "rule": rule, "seed": seed, "val/loss": 1.0, "test/loss": value}


def test_a_seed_that_diverged_counts():
    values = {"BP": (2.0, 2.1, 2.2), "Mine": (1.0, math.nan, 1.1), "Other": (1.0, math.inf, 1.1)}
    rows = [row(rule, seed, x) for rule, found in values.items() for seed, x in enumerate(found)]
    bp, *others = Results("s", "loss", rows).table
    assert (bp.rule, bp.mean) == ("BP", pytest.approx(2.1))
    mine = next(row for row in others if row.rule == "Mine")
    assert len(mine.values) == 3
    assert math.isnan(mine.mean)
    assert math.isnan(mine.to_bp.mean)
    assert all(math.isnan(row.sd) for row in others)


@pytest.mark.parametrize("rules", [["a.DFA", "b.DFA"], ["a.BP"]])
def test_two_rules_of_one_name_are_refused(rules, tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SUITE))
    with pytest.raises(ValueError, match=r"--rule: .* is that of .* already"):
        benchmark(tmp_path / "small.yaml", rules, tmp_path / "out")


def test_a_trial_is_chosen_by_its_end_even_if_words_change_its_length(tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**SUITE, "studies": 1, "rules": ["BP"]}))
    words = ["--trainer.max_epochs", "3"]
    benchmark(tmp_path / "small.yaml", out=tmp_path / "out", words=words)
    histories = list(tmp_path.rglob("search/**/metrics.jsonl"))
    assert len(histories) == 2
    for path in histories:
        assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 3]


def test_a_trial_that_was_not_validated_at_its_end_is_not_chosen(tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**SUITE, "studies": 1, "rules": ["BP"]}))
    with pytest.raises(ValueError, match="ended at step 3 and was last validated at step 0"):
        benchmark(tmp_path / "small.yaml", out=tmp_path / "out", words=["--trainer.max_steps=3"])


@pytest.mark.parametrize(
    ("suite", "words", "shown"),
    [
        ("digits", [], True),
        ("digits", ["--data.init_args.root", "there"], True),
        ("digits", ["--trainer.max_epochs=1"], False),
        ("digits.yaml", [], False),
    ],
)
def test_rows_of_another_budget_do_not_stand_beside_ones_own(suite, words, shown, tmp_path):
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(SUITE))
    found = read_suite(tmp_path / suite if suite.endswith(".yaml") else suite)
    assert (not _other_protocol(found, words)) is shown


def test_a_diagnostic_that_some_seeds_lack_shows_its_n():
    rows = [
        {**row("BP", seed, 1.0), "cosine": value, "cosine_first": value}
        for seed, value in enumerate((0.2, math.nan, 0.4))
    ]
    filled = {"trials": 1, "diverged": 0, "failed": 0, "cpu_seconds": 1, "peak_memory": 1}
    printed = str(Results("s", "loss", [{**r, **filled} for r in rows]))
    assert "0.3 (n = 2)" in printed

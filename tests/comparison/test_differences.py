"""Differences to a baseline, test data, and tags of one's own."""

import csv
import io
import math

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from lit_credit.comparison import compare, detectable_difference
from lit_credit.headlines import Headline, Panel
from lit_credit.runs.history import History, read_history
from tests.cli.synthetic_runs import write_run
from tests.comparison.test_groups import plain, run, swept


@pytest.fixture
def study(tmp_path):
    for rule in ("BP", "FA", "DFA"):
        for seed in (1, 2, 3, 4):
            write_run(tmp_path / rule / str(seed), rule, seed, epochs=4)
    return tmp_path


def ends(folder, rule, tag="val/accuracy", file="metrics"):
    places = sorted((folder / rule).iterdir(), key=lambda path: int(path.name))
    return [read_history(place / f"{file}.jsonl")[-1]["values"][tag] for place in places]


def test_paired_by_seed(study):
    found = compare(study, baseline="BP")
    bp, fa, dfa = found.table
    tests = {r: ttest_rel(ends(study, r), ends(study, "BP")) for r in ("FA", "DFA")}
    small = min(tests.values(), key=lambda t: t.pvalue).pvalue
    for row in (fa, dfa):
        expected = tests[row["rule"]]
        low, high = expected.confidence_interval()
        assert (row["accuracy_diff_low"], row["accuracy_diff_high"]) == pytest.approx((low, high))
        assert row["accuracy_diff_p"] == pytest.approx(expected.pvalue)
        assert row["accuracy_diff"] == pytest.approx(row["accuracy"] - bp["accuracy"])
        sd = np.std(np.subtract(ends(study, row["rule"]), ends(study, "BP")), ddof=1)
        assert row["accuracy_diff_resolves"] == pytest.approx(detectable_difference(sd, 4))
        assert (row["accuracy_diff_n"], row["accuracy_diff_test"]) == (4, "paired by seed")
        assert row["accuracy_diff_p_holm"] >= 2 * small
    assert bp["accuracy_diff"] == ""
    assert bp["baseline"] == "BP"
    text = str(found)
    assert "difference to BP" in text
    assert "h_last_diff" not in fa  # neither large nor small norms are better
    assert "p (Holm): corrected over the 2 groups compared with BP" in text
    assert "resolves: smallest true difference that these pairs detect at 80 % power" in text


def test_other_seeds_are_compared_unpaired(study):
    for seed in (11, 12, 13):
        write_run(study / "FrozenUnits" / str(seed), "FrozenUnits", seed, epochs=4)
    found = compare(study, baseline="BP")
    row = next(row for row in found.table if row["rule"] == "FrozenUnits")
    expected = ttest_ind(ends(study, "FrozenUnits"), ends(study, "BP"), equal_var=False)
    assert row["accuracy_diff_p"] == pytest.approx(expected.pvalue)
    assert row["accuracy_diff_test"] == "Welch, unpaired"
    assert math.isnan(row["accuracy_diff_resolves"])
    assert "Welch, unpaired" in found.to_latex()


def test_few_seeds_have_no_interval_and_that_is_said(tmp_path):
    for rule in ("BP", "DFA"):
        for seed in (1, 2):
            write_run(tmp_path / rule / str(seed), rule, seed, epochs=4)
    found = compare(tmp_path, baseline="BP")
    row = found.table[1]
    assert (row["accuracy_diff_n"], row["accuracy_diff"] < 0) == (2, True)
    assert math.isnan(row["accuracy_diff_low"])
    assert "no interval and no p value with fewer than 3 pairs or runs: DFA" in found.notes
    assert found.to_csv().splitlines()[0].startswith("rule,n,accuracy,accuracy_sd,accuracy_n,")


def test_one_run_each(tmp_path):
    for rule in ("BP", "DFA"):
        write_run(tmp_path / rule, rule, 1, epochs=4)
    row = compare(tmp_path, baseline="BP").table[1]
    assert row["accuracy_diff_n"] == 1
    assert math.isnan(row["accuracy_diff_sd"])


def test_several_runs_of_a_seed_count_once(tmp_path):
    swept(tmp_path, seeds=(1, 2, 3))
    row = compare(tmp_path, by="rule", baseline="BP").table[1]
    assert (row["n"], row["accuracy_diff_n"]) == (6, 3)


def test_ratios_of_a_logarithmic_quantity(study):
    found = compare(study, baseline="BP", metric="h")
    ratio = np.log10(ends(study, "DFA", "residual/norm/L04", "residual_norms"))
    ratio -= np.log10(ends(study, "BP", "residual/norm/L04", "residual_norms"))
    assert found.table[2]["h_diff"] == pytest.approx(ratio.mean())
    assert f"\u00d7{10 ** ratio.mean():.3g}" in str(found)


def test_an_unfinished_run_is_in_no_pair(study):
    path = study / "DFA" / "2" / "metrics.jsonl"
    for file in path.parent.glob("*.jsonl"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    row = compare(study, baseline="BP").table[2]
    assert (row["rule"], row["n"], row["accuracy_n"], row["accuracy_diff_n"]) == ("DFA", 4, 3, 3)
    places = ("1", "3", "4")
    values = [
        [read_history(study / rule / at / "metrics.jsonl")[-1]["values"]["val/accuracy"]
         for at in places]
        for rule in ("DFA", "BP")
    ]  # fmt: skip
    assert row["accuracy_diff_p"] == pytest.approx(ttest_rel(*values).pvalue)


def test_groups_without_a_p_value_are_not_corrected_for(study):
    for rule in ("FA", "FrozenUnits"):
        write_run(study / "more" / rule, rule, 1, epochs=4, width=7)
    notes = compare(study, baseline="BP").notes
    assert any("over the 2 groups compared with BP that have a p value" in n for n in notes)
    for seed in ("1", "2"):
        (study / "FA" / seed / "config.yaml").unlink()
        for file in (study / "FA" / seed).glob("*.jsonl"):
            file.unlink()
    found = compare(study, baseline="BP")
    assert any("over the 1 group compared with BP that has a p value" in n for n in found.notes)
    few = compare([study / "BP" / "1", study / "DFA" / "1"], baseline="BP")
    assert not any("p (Holm)" in note for note in few.notes)


# Test data


def test_test_data_stand_beside_validation_data(study):
    for rule, accuracy in (("BP", 0.9), ("FA", 0.7)):
        for seed in (1, 2, 3, 4):
            values = {"test/accuracy": accuracy + seed / 100, "test/loss": 0.1}
            history = History(study / rule / str(seed) / "test.jsonl")
            history.append(48, 4, "test", values)
    found = compare(study, baseline="BP")
    bp, fa, dfa = found.table
    assert bp["test_accuracy"] == pytest.approx(0.925)
    assert bp["accuracy"] == pytest.approx(np.mean(ends(study, "BP")))
    assert fa["test_accuracy_diff"] == pytest.approx(-0.2)
    assert math.isnan(dfa["test_accuracy"])
    head = str(found).splitlines()[0].split("  ")
    columns = [text.strip() for text in head if text.strip()]
    assert columns.index("test accuracy") == columns.index("accuracy") + 1
    assert all("test" not in ax.get_title(loc="left") for ax in found.figures["comparison"].axes)
    assert "test_accuracy" not in compare(study / "DFA").table[0]


# Tags


def test_tags_and_patterns(study):
    found = compare(study, metric=["residual/norm/L0[13]", "val/accuracy"])
    (head, *_) = found.to_markdown().splitlines()
    assert head == "| rule | n | residual/norm/L01 | residual/norm/L03 | accuracy |"
    value = np.mean(ends(study, "FA", "residual/norm/L03", "residual_norms"))
    assert found.table[1]["residual/norm/L03"] == pytest.approx(value)
    assert len(found.figures["comparison"].axes) == 3
    assert [row["rule"] for row in csv.DictReader(io.StringIO(found.to_csv()))] == [
        *("BP", "FA", "DFA")
    ]


def test_a_tag_that_no_run_has(study):
    with pytest.raises(ValueError, match=r"--metric: no run has a tag 'val/f1'\. Tags of these"):
        compare(study, metric="val/f1")
    with pytest.raises(ValueError, match=r"'test accuracy'\..* Columns: accuracy, loss, "):
        compare(study, metric="test accuracy")


def heads(found):
    return found.to_markdown().splitlines()[0].strip("| ").split(" | ")[2:]


def test_columns_and_headings_are_found_too(study):
    for seed in (1, 2, 3, 4):
        history = History(study / "BP" / str(seed) / "test.jsonl")
        history.append(48, 4, "test", {"test/accuracy": 0.5, "test/loss": 0.1})
    for wanted in ("test accuracy", "test_accuracy", "test_acc*", "test acc*", "test/acc*"):
        assert heads(compare(study, metric=wanted)) == ["test accuracy"], wanted
    assert heads(compare(study, metric="test*")) == ["test accuracy", "test loss"]
    assert heads(compare(study, metric="h_last")) == heads(compare(study, metric="h"))
    for wanted in ("|h_L| end", "|h_L| start", "growth", "h_first", "grow*"):
        assert heads(compare(study, metric=wanted))[1] == "\\|h_L\\| end", wanted
    assert "growth" in heads(compare(study, metric="growth"))


def test_a_tag_of_a_history_that_nobody_declares(study):
    for seed in (1, 2, 3, 4):
        history = History(study / "FA" / str(seed) / "my_thing.jsonl")
        history.append(1, 0, "my_thing", {"mine/score": float(seed)})
    bp, fa, _ = compare(study, metric="mine/*").table
    assert fa["mine/score"] == 2.5
    assert math.isnan(bp["mine/score"])


def test_plain_runs_have_panels_of_their_own_tags(tmp_path):
    for name in "ab":
        plain(tmp_path / name, {"val_loss": 0.5, "train_loss": 0.25})
    found = compare(tmp_path)
    assert [row["val_loss"] for row in found.table] == [0.5, 0.5]
    titles = [ax.get_title(loc="left") for ax in found.figures["comparison"].axes]
    assert titles == ["val_loss", "train_loss"]


# Figures


def test_figures_are_drawn_late_and_once(study, monkeypatch):
    calls = []
    draw = "lit_credit.comparison.figure.comparison_figure"
    monkeypatch.setattr(draw, lambda *args, **kwargs: calls.append(1))
    found = compare(study)
    assert (list(found.figures), calls) == (["comparison"], [])
    assert found.figures["comparison"] is found.figures["comparison"]
    assert calls == [1]
    with pytest.raises(KeyError):
        found.figures["nothing"]


def test_nothing_is_written_without_out(study, monkeypatch):
    empty = study / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    found = compare(study / "BP")
    assert list(empty.iterdir()) == []
    paths = found.write(study / "out")
    assert sorted(path.name for path in paths) == ["comparison.csv", "comparison.png"]
    assert all(path.stat().st_size > 100 for path in paths)


@pytest.mark.parametrize("rates", [(0.001, 0.01, 0.1), (0.1, 0.2, 0.3), (0.0, 0.01, 0.1)])
def test_the_figure_over_a_numeric_factor(tmp_path, rates):
    swept(tmp_path, rates=rates)
    run(tmp_path / "fa", "FA", 1)
    found = compare(tmp_path)
    figure = found.figures["over_lr"]
    ax = figure.axes[-1]
    scale = {0.001: "log", 0.1: "linear", 0.0: "symlog"}[rates[0]]
    assert {ax.get_xscale() for ax in figure.axes} == {scale}
    assert {text.get_text() for text in ax.texts} == {"BP", "DFA"}
    (bp, dfa) = (line for line in ax.lines if line.get_linewidth() > 2)
    assert bp.get_xdata() == pytest.approx(sorted(rates))
    rows = {row["rule"]: row["accuracy"] for row in found.table}
    expected = [rows[f"DFA lr={lr:.6g}"] for lr in sorted(rates)]
    assert dfa.get_ydata() == pytest.approx(expected)
    assert (bp.get_color(), dfa.get_color()) == ("#0072B2", "#D55E00")


def test_headlines_say_what_is_better():
    made = Headline("time", unit="s", better="down", panel=Panel("Time", "s", log=True))
    assert (made.text, made.better, made.is_logarithmic) == ("time (s)", "down", True)
    assert Headline("x").better == "neither"
    assert Headline("x", log=True).is_logarithmic


def test_metrics_that_nobody_declares_are_compared_too(tmp_path):
    for name, shift in (("a", 0.0), ("b", 0.25)):
        for seed in (1, 2, 3):
            folder = tmp_path / name / f"seed_{seed}"
            plain(folder, {"val_acc": 0.5 + shift + seed * (1 + shift) / 100})
    row = compare(tmp_path, baseline="a").table[1]
    assert row["val_acc_diff"] == pytest.approx(0.255)
    assert row["val_acc_diff_n"] == 3


def test_a_seed_that_diverged_is_named(tmp_path):
    for seed in (1, 2, 3):
        value = math.nan if seed == 2 else 0.5
        plain(tmp_path / "net" / f"seed_{seed}", {"val/accuracy": value})
    found = compare(tmp_path)
    assert math.isnan(found.table[0]["accuracy"])
    assert (
        "undefined: net: accuracy is NaN or infinite at the end of seed 2, and so is the mean"
        in found.notes
    )


def test_seeds_that_diverged_on_both_sides_are_named(tmp_path):
    losses = {"a": (0.3, math.inf, 0.3), "b": (math.inf, 0.4, 0.4)}
    for name, values in losses.items():
        for seed, value in enumerate(values, 1):
            plain(tmp_path / name / f"seed_{seed}", {"val/loss": value})
    found = compare(tmp_path, baseline="a")
    assert all(math.isnan(found.table[1][f"loss_diff{end}"]) for end in ("", "_low", "_p"))
    assert found.table[1]["loss_diff_n"] == 3
    for name, seed in (("a", 2), ("b", 1)):
        assert (
            f"undefined: {name}: loss is NaN or infinite at the end of seed {seed}, and so is the "
            "mean"
        ) in found.notes


def test_huge_numbers_are_short(tmp_path):
    for seed in (1, 2, 3):
        plain(tmp_path / "net" / f"seed_{seed}", {"val/loss": (1.5 + seed / 16) * 1e308})
        plain(tmp_path / "other" / f"seed_{seed}", {"val/loss": 0.25})
    text = str(compare(tmp_path, baseline="other"))
    assert "1.625e+308" in text
    assert "+1.625e+308" in text
    assert max(map(len, text.splitlines())) < 300


def test_two_pairs_of_equal_differences_resolve_nothing(tmp_path):
    """Their spread is unknown, not 0."""
    for name, shift in (("a", 0.0), ("b", 0.1)):
        for seed, value in ((1, 0.3), (2, 0.7)):
            plain(tmp_path / name / f"seed_{seed}", {"val/accuracy": value + shift})
    found = compare(tmp_path, baseline="a")
    assert found.table[1]["accuracy_diff"] == pytest.approx(0.1)
    assert math.isnan(found.table[1]["accuracy_diff_resolves"])
    assert not any(note.startswith("resolves") for note in found.notes)


def test_a_number_in_the_label_of_the_baseline_may_be_written_otherwise(tmp_path):
    for lr in (0.001, 0.01):
        for seed in (1, 2, 3):
            write_run(tmp_path / f"{lr}" / str(seed), "BP", seed, epochs=2, lr=lr)
    labels = [row["rule"] for row in compare(tmp_path).table]
    assert labels == ["BP lr=0.001", "BP lr=0.01"]
    for wanted in ("BP lr=1e-3", "BP  lr=0.0010", "BP lr=.001"):
        assert compare(tmp_path, baseline=wanted).table[0]["baseline"] == "BP lr=0.001"
    with pytest.raises(ValueError, match="no group has this label"):
        compare(tmp_path, baseline="BP lr=0.1")

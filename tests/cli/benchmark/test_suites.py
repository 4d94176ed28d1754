"""Reading suites and rules, and refusing what is neither."""

from inspect import signature

import pytest
import yaml

from lit_credit import rules
from lit_credit.cli import main
from lit_credit.cli.benchmark.suites import (
    find_entries,
    read_entries,
    read_suite,
    suite_names,
)


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_of_ours_has_baselines_and_tasks(name):
    suite = read_suite(name)
    assert {"BP", "FrozenUnits"} <= set(suite.rules)
    assert suite.tasks
    assert all(any(entry.fits(task) for task in suite.tasks.values()) for entry in _entries(suite))


def _entries(suite):
    return [read_entries()[name] for name in suite.rules]


def test_a_rule_with_a_net_of_its_own_fits_only_its_task():
    suite, entry = read_suite("digits"), read_entries()["EquilibriumPropagation"]
    assert [name for name, task in suite.tasks.items() if entry.fits(task)] == ["mlp"]


def test_a_word_names_a_row_a_class_or_a_file(tmp_path):
    assert find_entries("DFA penalty")["DFA penalty"].knob == "scale_penalty"
    mine = find_entries("my_rules.Mine", "beta", [1, 2])["Mine"]
    assert (mine.class_path, mine.knob, mine.values) == ("my_rules.Mine", "beta", [1, 2])
    path = tmp_path / "rows.yaml"
    path.write_text("A: {model: {class_path: a.A, init_args: {b: 1}}, nets: [MLP]}\n")
    (entry,) = find_entries(str(path)).values()
    assert (entry.arguments, entry.nets, entry.credit_scale) == ({"b": 1}, ["MLP"], True)


GOOD = {
    "studies": 1,
    "trials": 1,
    "seeds": [1],
    "rules": ["BP"],
    "tasks": {"t": {"model": {"init_args": {"net": {"class_path": "MLP"}}}, "data": "Digits"}},
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rules": ["DFAA"]}, "rule 'DFAA'. Expected"),
        ({"trials": 0}, "expected 1 or more"),
        ({"seeds": []}, "expected 1 or more"),
        ({"seeds": "many"}, "Expected `studies`, `trials`"),
        ({"tasks": {"t": {"data": "Digits"}}}, "Expected `studies`, `trials`"),
        ({"tasks": None}, "Expected `studies`, `trials`"),
    ],
)
def test_a_broken_suite_is_refused(tmp_path, capsys, change, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    assert main(["benchmark", "--suite", str(path)]) == 2
    error = capsys.readouterr().err
    assert "--suite" in error
    assert expected in error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--suite", "digit"], "--suite: 'digit'. Expected"),
        (["--suite", "nowhere.yaml"], "cannot be read"),
        (["--rule", "my rule"], "--rule: 'my rule'. Expected the import path"),
        (["--rule", "a.B", "--knob", "beta"], "--knob: 'beta'. Expected the name"),
        (["--rule", "a.B", "--knob", "beta=3"], "--knob: 'beta=3'. Expected the name"),
        (["--jobs", "0"], "--jobs: 0. Expected"),
    ],
)
def test_wrong_words_are_refused_before_any_run(tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *words]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("row", [{"model": {}}, {"model": {"class_path": "a.B"}, "knobs": {}}, 3])
def test_a_broken_row_is_refused(tmp_path, row):
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump({"A": row}))
    with pytest.raises(ValueError, match="Expected `model` with `class_path`"):
        find_entries(str(path))


@pytest.mark.parametrize("name", sorted(read_entries()))
def test_arguments_and_knob_of_a_row_are_arguments_of_its_class(name):
    entry = read_entries()[name]
    known = signature(getattr(rules, entry.class_path)).parameters
    used = {key.partition(".")[0] for key in (*entry.arguments, entry.knob)}
    assert used <= {*known, ""}

"""Classes of a person's own, which compare finds by the paths in config.yaml."""

import csv
import sys

import pytest
import yaml
from matplotlib.figure import Figure

from lit_credit.callbacks import Diagnostic, MetricHistory, ResidualNorms
from lit_credit.comparison import compare, figure
from lit_credit.comparison.known import found_class, run_curve
from lit_credit.headlines import ComparisonFigure, Derived, Flag, Headline, Look, Panel
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import History
from lit_credit.runs.run_folder import read_run
from lit_credit.studies.addition import AdderAnatomy
from lit_credit.tasks import Classification
from tests.cli.synthetic_runs import write_run

HERE = __name__
COLOR = "#123456"


def _best_place(rows, section):
    return "place/R07" if rows else None


def _draw(runs, *, title, colors):
    assert list(runs) == list(colors)
    figure = Figure()
    figure.suptitle(title)
    return figure


class Score(Diagnostic):
    name = "score"
    section = "scores"
    headline = (
        Headline(
            "my_score",
            "total",
            form=".1f",
            order=5,
            derived=(
                Derived(
                    "gain",
                    lambda ends: ends.last - ends.first,
                    flag=Flag("low", "is_low", "gain below 9", lambda ends: ends.last < 9),
                ),
            ),
            panel=Panel("My score", "points"),
        ),
        Headline("best_place", _best_place),
    )
    comparison_figures = (ComparisonFigure("scores", "scores over steps", _draw),)

    def update(self, chunk):
        pass

    def compute(self):
        return {"total": 1.0}


class OtherNorms(ResidualNorms):
    name = "other_norms"


class Wrong(ResidualNorms):
    headline = Headline("h", "norm")


class F1Task(Classification):
    headline = (Headline("f1", form=".2f", each_loader=True, panel=Panel("F1", "F1 score")),)


class MyRule(BP):
    look = Look(order=-1, color=COLOR)


class MyDFA(DFA):
    """With no look of its own."""


def own_run(folder, seed, *, rule="MyRule", task=None, callbacks=(), module=HERE):
    """A run of BP's numbers, by other classes."""
    write_run(folder, "BP", seed, epochs=2)

    def path(name):
        return {"class_path": f"{module}.{name}"}

    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["class_path"] = path(rule)["class_path"]
    if task is not None:
        config["model"]["init_args"]["task"] = path(task)
    config["trainer"]["callbacks"] = [path(name) for name in callbacks]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def add(folder, name, values):
    """Values of three epochs, each larger by one than those before."""
    history = History(folder / f"{name}.jsonl", [])
    for epoch in range(3):
        history.append(
            12 * epoch, epoch, name, {tag: value + epoch for tag, value in values.items()}
        )


def rows(out):
    with (out / "comparison.csv").open(encoding="utf-8") as file:
        return {row["rule"]: row for row in csv.DictReader(file)}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    figures = []

    def keep(*args, **kwargs):
        figures.append(draw(*args, **kwargs))
        return figures[-1]

    draw = figure.comparison_figure
    monkeypatch.setattr(figure, "comparison_figure", keep)
    return figures


def test_a_diagnostic_a_task_and_a_rule_of_ones_own(tmp_path, drawn):
    for seed in (1, 2):
        own = own_run(tmp_path / f"own{seed}", seed, task="F1Task", callbacks=["Score"])
        (own / "metrics.jsonl").unlink()
        add(own, "metrics", {"val/f1": 0.5, "val/loss": 1.0, "val/f1/ood": 0.25, "val/loss/ood": 1})
        add(own, "score", {"scores/total": 3.0 + 2 * seed, "scores/place/R07": 7.0})
        write_run(tmp_path / f"bp{seed}", "BP", seed, epochs=2)
    out = tmp_path / "out"
    head, mine, bp, *lines = str(compare([tmp_path], out)).splitlines()
    assert mine.startswith("MyRule")
    assert bp.startswith("BP")
    assert "8.0 ± 1.4" in mine
    assert "low" in mine
    assert lines == ["flag low: gain below 9", "scores over steps: scores.png"]
    order = [head.index(text) for text in ("loss ood", "my score", "cosine", "f1", "f1 ood")]
    assert order == sorted(order)
    row = rows(out)["MyRule"]
    values = {"my_score": 8.0, "gain": 2.0, "is_low": 1.0, "best_place": 9.0, "f1": 2.5}
    assert {name: float(row[name]) for name in values} == values
    assert float(row["f1/ood"]) == 2.25
    assert rows(out)["BP"]["my_score"] == ""
    assert (out / "scores.png").is_file()
    (figure,) = drawn
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[3:] == ["Accuracy", "F1", "My score"]
    assert {line.get_color() for line in figure.axes[5].lines} == {COLOR}
    assert {text.get_text() for text in figure.axes[4].texts} == {"MyRule  2.50"}


def test_a_subclass_has_no_look_by_inheritance(tmp_path, drawn):
    own_run(tmp_path / "a", 1, rule="MyDFA")
    write_run(tmp_path / "b", "DFA", 1, epochs=2)
    compare([tmp_path], tmp_path / "out")
    assert list(rows(tmp_path / "out")) == ["DFA", "MyDFA"]
    colors = {line.get_color() for line in drawn[0].axes[0].lines}
    assert len(colors) == 2


def test_two_diagnostics_of_one_quantity_are_told_apart(tmp_path):
    folder = own_run(tmp_path / "a", 1, callbacks=["OtherNorms"])
    add(folder, "other_norms", {"residual/norm/L00": 4.0, "residual/norm/L01": 8.0})
    head = str(compare([tmp_path], tmp_path / "out")).splitlines()[0]
    assert "other_norms/|h_L| end" in head
    row = rows(tmp_path / "out")["MyRule"]
    assert (row["other_norms/h_last"], row["other_norms/growth"]) == ("10", "1.25")
    assert float(row["h_last"]) != 10


@pytest.mark.parametrize("module", ["not_installed", "raises_on_import", "exits_on_import"])
def test_classes_that_cannot_be_imported(module, tmp_path, monkeypatch):
    (tmp_path / "raises_on_import.py").write_text("1 / 0")
    (tmp_path / "exits_on_import.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    folder = own_run(tmp_path / "runs", 1, task="TheirTask", callbacks=["Theirs"], module=module)
    add(folder, "theirs", {f"theirs/{i}": float(i) for i in range(20)})
    add(folder, "scale_stability", {"stability/norm": 1.0})  # of lit_credit, no headline
    (folder / "notes.jsonl").write_text('{"values": "a note"}\n')
    (folder / "metrics.jsonl").unlink()
    add(folder, "metrics", {"val/loss": 1.0, "val/f1": 0.5})
    head, line, note = str(compare([tmp_path / "runs"], tmp_path / "out")).splitlines()
    assert note.startswith(f"not imported: {module}.MyRule, {module}.TheirTask, {module}.Theirs: ")
    assert line.startswith("MyRule")
    assert "theirs/7" in head
    assert "theirs/8" not in head
    assert "val/f1" in head
    assert "stability" not in head
    assert "val/loss" not in head
    assert rows(tmp_path / "out")["MyRule"]["val/f1"] == "2.5"


def test_a_run_without_a_configuration(tmp_path):
    folder = write_run(tmp_path / "plain", "DFA", 1, epochs=2)
    (folder / "config.yaml").unlink()
    add(folder, "theirs", {"theirs/a": 1.0})
    head, line, *_ = str(compare([folder], tmp_path / "out")).splitlines()
    assert line.startswith("plain")
    assert "theirs/a" in head
    assert "cosine" in head
    assert float(rows(tmp_path / "out")["plain"]["growth"]) > 50
    write_run(tmp_path / "whole", "BP", 1, epochs=2)
    compare([tmp_path], tmp_path / "out")
    assert list(rows(tmp_path / "out")) == ["BP", "plain"]


def test_a_run_of_which_nothing_is_compared(tmp_path):
    folder = own_run(tmp_path / "a", 1)
    for path in folder.glob("*.jsonl"):
        path.unlink()
    add(folder, "scale_stability", {"stability/norm": 1.0})
    with pytest.raises(ValueError, match="anything to compare"):
        compare([tmp_path], tmp_path / "out")


def test_what_is_no_declaration_is_named(tmp_path):
    own_run(tmp_path / "a", 1, callbacks=["Wrong"])
    with pytest.raises(ValueError, match=rf"class {HERE}.Wrong: `headline` is Headline\("):
        compare([tmp_path], tmp_path / "out")


def test_classes_are_found_by_former_paths_without_a_warning():
    assert found_class("lit_credit.callbacks.AdderAnatomy") is AdderAnatomy
    assert found_class("lit_credit.callbacks.adder_anatomy.AdderAnatomy") is AdderAnatomy
    assert found_class("lit_credit.callbacks.MetricHistory") is MetricHistory


@pytest.mark.parametrize("path", ["", "Bare", ".", "os.path.join", "lit_credit.__main__.main"])
def test_what_is_no_class(path):
    before = set(sys.modules)
    assert found_class(path) is None
    assert "lit_credit.__main__" not in set(sys.modules) - before


def test_a_run_read_in_python_has_all_its_histories(tmp_path):
    folder = own_run(tmp_path / "a", 1)
    add(folder, "theirs", {"theirs/a": 1.0})
    (folder / "notes.jsonl").write_text("[1]\n")
    histories = read_run(folder).histories
    assert {"theirs", "metrics", "residual_norms"} <= set(histories)
    assert "notes" not in histories
    assert (
        run_curve(histories, "h")[2]
        == histories["residual_norms"][2]["values"]["residual/norm/L04"]
    )
    assert run_curve(
        {"metrics": [{"step": 0, "epoch": 0, "values": {"val/accuracy/ood": 1.0}}]}, "accuracy/ood"
    ) == {0: 1.0}


class Own(Classification):
    """A task that declares nothing."""


@pytest.mark.parametrize(
    "task",
    [
        {"class_path": f"{HERE}.Own"},
        {"class_path": "lit_credit.tasks.Supervised", "init_args": {"metrics": {"f1": {}}}},
    ],
)
def test_added_metrics_and_those_of_an_own_task_are_compared(tmp_path, task):
    folder = write_run(tmp_path / "run", "BP", 1, epochs=1)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["init_args"]["task"] = task
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    History(folder / "metrics.jsonl").append(99, 2, "metrics", {"val/f1": 0.75})
    compare(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "comparison.csv").read_text()
    (row,) = csv.DictReader(text.splitlines())
    assert float(row["f1"]) == 0.75


def test_classes_that_cannot_be_imported_are_named(tmp_path):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    assert not any("not imported" in note for note in compare(tmp_path).notes)
    path = tmp_path / "a" / "config.yaml"
    path.write_text(path.read_text().replace("lit_credit.rules.BP", "own_nowhere.BP"))
    (note,) = [note for note in compare(tmp_path).notes if "not imported" in note]
    assert note.startswith("not imported: own_nowhere.BP: what they declare is unknown")


class Misnamed(Score):
    name = "misnamed"
    headline = (Headline("points", "totl"),)
    comparison_figures = ()


def test_a_headline_whose_tag_was_never_recorded_is_told(tmp_path):
    folder = own_run(tmp_path / "a", 1, callbacks=["Misnamed", "Score"])
    add(folder, "misnamed", {"scores/total": 1.0})
    add(folder, "score", {"scores/total": 1.0})
    (note,) = (note for note in compare(tmp_path).notes if note.startswith("not recorded"))
    assert "points: no row of misnamed.jsonl has the tag scores/totl" in note


def test_a_diagnostic_that_was_not_measured_is_not_told(tmp_path):
    folder = own_run(tmp_path / "a", 1, callbacks=["Misnamed", "Score"])
    add(folder, "score", {"scores/total": 1.0})
    assert not [note for note in compare(tmp_path).notes if note.startswith("not recorded")]

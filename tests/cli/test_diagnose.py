"""``lit-credit diagnose``: the checkpoints of a run, of other projects, and what is refused."""

import csv
import json
import math
import signal

import pytest
import torch
import yaml

from lit_credit.callbacks import ResidualNorms
from lit_credit.cli import main
from lit_credit.diagnosis import diagnose
from lit_credit.runs.history import read_history
from tests import support
from tests.cli.foreign_project import Project, ProjectData
from tests.support.processes import start_module, wait_until

COUNT = 40
CONFIG = "configs/residual_explosion/dfa.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run with checkpoints at its start, in mid-epoch and after its epochs."""
    root = tmp_path_factory.mktemp("runs")
    words = ["fit", "--config", CONFIG, "--trainer.default_root_dir", str(root)]
    words += ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "4"]
    words += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    words += ["--trainer.callbacks+", "SpacedCheckpoints", "--trainer.callbacks.steps", "linear"]
    words += ["--trainer.callbacks.every", "4"]
    assert main(words) == 0
    return root / "DFA" / "seed_42"


def rows(folder):
    """The rows of each history in a folder, without proofs."""
    names = ("step", "epoch", "name", "values")
    return {
        path.name: {row["step"]: json.dumps([row[n] for n in names]) for row in read_history(path)}
        for path in folder.glob("*.jsonl")
    }


@pytest.fixture(scope="module")
def diagnosed(run):
    assert main(["diagnose", "--config", str(run / "config.yaml")]) == 0
    return run / "diagnose"


def test_rows_are_those_of_the_run(run, diagnosed):
    of_run, again = rows(run), rows(diagnosed)
    assert of_run.keys() == again.keys()
    for name, wanted in of_run.items():
        assert len(again[name]) == 3
        common = wanted.keys() & again[name].keys()
        assert len(common) >= 2
        assert all(again[name][step] == wanted[step] for step in common), name


def test_compare_reads_a_diagnosis_and_does_not_count_it_within_its_run(
    run, diagnosed, tmp_path, capsys
):
    table = tmp_path / "comparison.csv"
    for folder in (run, diagnosed):
        assert main(["compare", str(folder), "--out", str(tmp_path)]) == 0
        assert [line["n"] for line in csv.DictReader(table.read_text().splitlines())] == ["1"]
    capsys.readouterr()


def test_tensorboard_has_every_value_once(diagnosed):
    found = support.events(diagnosed)
    wanted = {}
    for path in diagnosed.glob("*.jsonl"):
        for row in read_history(path):
            for tag, value in row["values"].items():
                if math.isfinite(value):
                    wanted.setdefault(tag, []).append(row["step"])
    assert len(wanted) > 30
    for tag, steps in wanted.items():
        assert [event.step for event in found.Scalars(tag)] == steps, tag


def plain_weights(folder, count):
    """Checkpoints of another project: bare state_dicts below a key, with the step in the name."""
    folder.mkdir()
    for step in range(count):
        torch.manual_seed(step)
        torch.save({"weights": support.NoisyNet().state_dict()}, folder / f"net_{step}.pt")
    return folder


def foreign(tmp_path, out, *words):
    """The words that measure a foreign module on data of this test's own modules."""
    return [
        "diagnose",
        *("--model", "tests.cli.foreign_project.Project"),
        *("--data", "tests.cli.foreign_project.ProjectData"),
        *("--ckpt_path", str(tmp_path / "weights" / "net_*.pt"), "--key", "weights"),
        *("--trainer.callbacks+", "ResidualNorms", "--trainer.callbacks.units", "[model.blocks.*]"),
        *("--trainer.accelerator", "cpu", "--out", str(tmp_path / out), *words),
    ]


@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again(tmp_path):
    plain_weights(tmp_path / "weights", COUNT)
    history = tmp_path / "cut" / "residual_norms.jsonl"
    process = start_module("lit_credit", *foreign(tmp_path, "cut"))
    wait_until(lambda: history.exists() and len(read_history(history)) > 2, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in said
    assert 2 < len(read_history(history)) < COUNT
    assert main(foreign(tmp_path, "cut")) == 0
    assert [row["step"] for row in read_history(history)] == list(range(COUNT))
    norms, out = ResidualNorms(units=["model.blocks.*"]), tmp_path / "whole"
    diagnose(Project(), norms, ProjectData(), checkpoints=tmp_path / "weights", out=out)
    assert history.read_bytes() == (tmp_path / "whole" / "residual_norms.jsonl").read_bytes()


def no_diagnostics(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["callbacks"] = []
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return ["--config", str(tmp_path / "config.yaml"), "--ckpt_path", str(run)]


def of(*words):
    return lambda run, tmp_path: ["--config", str(run / "config.yaml"), *words]


def file_for_out(run, tmp_path):
    (tmp_path / "file").write_text("")
    return of("--out", str(tmp_path / "file"))(run, tmp_path)


REFUSED = {
    "no diagnostics": (no_diagnostics, "has no diagnostic to measure", 1),
    "an empty pattern": (
        of("--ckpt_path", "no/*.ckpt"),
        "`--ckpt_path` is 'no/*.ckpt', a pattern",
        1,
    ),
    "a file for --out": (file_for_out, "Give another `--out`", 1),
    "an unknown name": (of("--trainer.callbacks+", "ResidualNorm"), "ResidualNorm", 2),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(case, run, tmp_path, capsys):
    words, text, code = case
    before = sorted(run.rglob("*"))
    assert main(["diagnose", *words(run, tmp_path)]) == code
    assert text in " ".join(capsys.readouterr().err.split())
    assert sorted(run.rglob("*")) == before

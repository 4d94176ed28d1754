"""Small grids, run to the end, resumed, broken and interrupted."""

import csv
import os
import re
import signal
import threading
from multiprocessing import active_children
from pathlib import Path

import pytest
import yaml
from pyarrow import parquet

from lit_credit.cli import compare, main, run
from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.grid import Point
from lit_credit.cli.sweep.run import _last_values, run_cell
from lit_credit.cli.sweep.table import write_rows
from lit_credit.runs.history import read_history
from lit_credit.runs.lock import hold_folder
from tests.support.processes import wait_until

BASE = """
model:
  class_path: BP
  init_args:
    task: Classification
    net: {class_path: lit_credit.models.MLP, init_args: {in_features: 64, hidden: [8, 8]}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.01}}
data: Digits
trainer: {accelerator: cpu, max_epochs: 1, limit_train_batches: 2, log_every_n_steps: 1}
"""
GRID = """
model.init_args.optimizer.init_args.lr: [0.01]
seed_everything: [7, 8]
cases:
  - {name: exact, model.class_path: BP, trainer.callbacks+: GradientNorms}
  - {name: random, model.class_path: DFA}
  - {name: narrow, model.init_args.net.init_args.in_features: 63}
  - name: killed
    data.init_args.batch_size: 64
    trainer.callbacks+: tests.cli.sweep.callbacks.Killed
"""
GOOD, BROKEN = ("exact", "random"), ("narrow", "killed")


class Sweep:
    """A folder with a base, a grid and a table."""

    def __init__(self, folder, grid, base=BASE):
        self.folder, self.out = folder, folder / "table.csv"
        (folder / "base.yaml").write_text(base)
        (folder / "grid.yaml").write_text(grid)

    def __call__(self, *words):
        named = {"config": "base.yaml", "grid": "grid.yaml", "out": self.out.name}
        return main(["sweep", *(f"--{k}={self.folder / v}" for k, v in named.items()), *words])

    def rows(self):
        with self.out.open() as file:
            return list(csv.DictReader(file))

    def files(self, pattern):
        return {p: p.read_bytes() for p in self.folder.rglob(pattern) if p.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    sweep = Sweep(tmp_path_factory.mktemp("sweep"), GRID)
    sweep.code = sweep("--jobs=2")
    return sweep


def test_a_row_for_each_run(done):
    assert done.code == 1  # some failed, and did not stop the rest
    rows = done.rows()
    assert [(row["case"], row["seed_everything"]) for row in rows] == [
        (case, seed) for case in (*GOOD, *BROKEN) for seed in ("7", "8")
    ]
    for row in rows:
        good = row["case"] in GOOD
        assert row["status"] == ("finished" if good else "failed")
        assert row["model.init_args.optimizer.init_args.lr"] == "0.01"
        assert [bool(row[c]) for c in ("seconds", "epoch", "val/loss")] == [good] * 3
        if good:
            (history,) = Path(row["folder"]).rglob("metrics.jsonl")
            last = read_history(history)[-1]
            assert (int(row["epoch"]), int(row["step"])) == (last["epoch"], last["step"]) == (1, 2)
            for name, value in last["values"].items():
                assert float(row[name]) == pytest.approx(value, rel=1e-6)


def test_a_row_ends_in_what_the_diagnostics_measured_last(done):
    rows = [row for row in done.rows() if row["case"] in GOOD]
    assert [bool(row["gradient/norm/L00"]) for row in rows] == [True, True, False, False]
    (path,) = Path(rows[0]["folder"]).rglob("gradient_norms.jsonl")
    last = read_history(path)[-1]["values"]
    assert float(rows[0]["gradient/norm/L00"]) == pytest.approx(last["gradient/norm/L00"], rel=1e-6)


def test_without_validation_what_was_logged_stands_beside_the_diagnostics(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    words = ["fit", f"--config={tmp_path / 'base.yaml'}", "--trainer.callbacks+=GradientNorms"]
    words += ["--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"]
    names = list(_last_values(run([*words, f"--trainer.default_root_dir={tmp_path}"]).trainer))
    assert names[0] == "train/loss"
    assert "gradient/norm/L00" in names


def test_a_run_of_a_sweep_is_the_run_alone(done, tmp_path):
    """The last of four in its order, so whatever another cell left behind would show."""
    alone = ["fit", f"--config={done.folder / 'base.yaml'}", "--model.class_path=DFA"]
    alone += ["--seed_everything=8", f"--trainer.default_root_dir={tmp_path}"]
    assert main([*alone, "--trainer.enable_progress_bar=false"]) == 0
    (expected,) = tmp_path.rglob("metrics.jsonl")
    (found,) = (done.folder / "table" / "random,lr=0.01" / "seed_8").rglob("metrics.jsonl")
    assert found.read_bytes() == expected.read_bytes()


def test_logs_hold_what_a_run_printed(done, capfd):
    logs = {path.parts[-3]: text for path, text in done.files("log.txt").items()}
    assert b"max_epochs=1` reached" in logs["exact,lr=0.01"]
    narrow = logs["narrow,lr=0.01"]
    assert b"`in_features` is 63, but a sample of the data has 64" in narrow.splitlines()[-1]
    assert narrow.splitlines()[-1].startswith(b"lit-credit: error: ")
    assert b"Traceback" not in narrow
    assert b"about to die" in logs["killed,lr=0.01"]


def test_the_runs_can_be_compared(done, tmp_path):
    text = str(compare.compare([done.folder / "table"], tmp_path))
    lines = [line.split()[:3] for line in text.splitlines()]
    for line in (["BP", "batch_size=128", "2"], ["BP", "batch_size=64", "2"]):
        assert line in lines
    assert ["DFA", "2"] in [line[:2] for line in lines]


def test_the_same_command_runs_what_failed_and_leaves_the_rest(done, capfd):
    before = done.files("result.json")
    assert len(before) == 4
    times = {p: p.stat().st_mtime_ns for p in done.folder.rglob("*.ckpt")}
    (done.folder / "grid.yaml").write_text(GRID.replace("[7, 8]", "[8]"))
    assert done() == 1
    printed = capfd.readouterr().out
    assert re.search(r"^4 runs planned in \d+ s, 2 of them finished before", printed, re.M)
    for case in BROKEN:
        (line,) = (x for x in printed.splitlines() if f"{case},lr=0.01/seed_8: FAILED" in x)
        assert re.match(r"\[(3/4, \d+ s left|4/4)\] ", line)
    assert "killed by signal 9" in printed
    assert "but a sample of the data has 64" in printed
    assert done.files("result.json") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_run_of_another_configuration_is_not_taken_for_this_one(done, capfd):
    before = done.files("*")
    assert done("--trainer.limit_train_batches=3") == 2
    error = capfd.readouterr().err
    assert re.search(r"trainer.limit_train_batches: 2(\.0)?, and 3(\.0)? is asked for", error)
    assert len(error.splitlines()) == 1
    assert done.files("*") == before


def interrupted(folder, *words):
    """Stop a sweep of two runs by Ctrl-C in the third epoch of the first; with the pid of that."""
    base = yaml.safe_load(BASE)
    held = {"class_path": "tests.cli.sweep.callbacks.Held", "init_args": {"hold": f"{folder}/hold"}}
    base["trainer"] |= {"max_epochs": 4, "callbacks+": [held]}
    sweep = Sweep(folder, "seed_everything: [7, 8]", yaml.safe_dump(base))
    (folder / "hold").touch()

    def interrupt():
        wait_until((folder / "held").exists)
        for pid in [*(child.pid for child in active_children()), os.getpid()]:
            os.kill(pid, signal.SIGINT)  # as a terminal does

    thread = threading.Thread(target=interrupt)
    # A process that was started in the background ignores Ctrl-C, and would wait for ever.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        code = sweep("--jobs=1", *words)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert [row["status"] for row in sweep.rows()] == ["unfinished", "unfinished"]
    assert not sweep.files("result.json")
    return sweep, int((folder / "held").read_text())


def test_ctrl_c_ends_the_runs_and_the_same_command_goes_on(tmp_path):
    sweep, _ = interrupted(tmp_path)
    assert active_children() == []
    (history,) = tmp_path.rglob("metrics.jsonl")
    assert [row["epoch"] for row in read_history(history)] == [0, 1, 2]

    (tmp_path / "hold").unlink()
    assert sweep("--jobs=1") == 0
    assert [(row["status"], row["epoch"]) for row in sweep.rows()] == [("finished", "4")] * 2
    first, second = (tmp_path / "table" / "base" / f"seed_{s}" / "log.txt" for s in (7, 8))
    assert "Restored all states from the checkpoint" in first.read_text()
    assert "Restored" not in second.read_text()
    assert [row["epoch"] for row in read_history(history)] == [0, 1, 2, 3, 4]


def test_a_run_that_is_of_no_sweep_is_left_alone(done, tmp_path, capfd):
    sweep = Sweep(tmp_path, "seed_everything: [7]")
    alone = tmp_path / "table" / "base" / "seed_7" / "last.ckpt"
    alone.parent.mkdir(parents=True)
    alone.touch()
    assert sweep() == 2
    assert "holds a run of no sweep. Give another --out" in capfd.readouterr().err
    assert alone.exists()


@pytest.mark.parametrize(
    ("words", "grid", "message"),
    [
        (["--jobs=0"], "{a: [1]}", "--jobs: 0. Expected"),
        (["--jobs=-1"], "{a: [1]}", "--jobs: -1. Expected"),
        (["--gpus=nan", "--executor=ray"], "{a: [1]}", "--gpus: nan. Expected"),
        (["--gpus=-1"], "{a: [1]}", "--gpus: -1. Expected"),
        (["--out=."], "{a: [1]}", "--out: '.'. Expected a file that ends in .csv"),
        (["--out=/dev/null/table.csv"], "{a: [1]}", "/dev/null is no folder. Give another --out"),
        ([], "{seed_everything: [-1]}", "seed_everything: [-1]. Expected"),
        (["--executor=slurm"], "{a: [1]}", "--executor: 'slurm'. Expected local or ray"),
        (["--gpus=1"], "{a: [1]}", "--gpus: 1. Only Ray"),
        (["--out=table.txt"], "{a: [1]}", "--out: 'table.txt'. Expected a file that ends in .csv"),
        (["--ckpt_path=last"], "{a: [1]}", "--ckpt_path=last: the sweep sets it itself"),
        (["--config=nope.yaml"], "{a.b: [1]}", "cell b=1: config: File does not"),
        ([], "{model.class_path: [BP, Foo]}", "cell model=Foo: model: no class Foo"),
        ([], "{model.init_args.net.init_args.hiden: [1]}", "cell hiden=1: "),
        ([], "{modl.depth: [1]}", "cell depth=1: unrecognized arguments: --modl.depth=1"),
        (
            ["--model=null"],
            "{seed_everything: [1]}",
            "cell base: the following arguments are required: fit.model",
        ),
    ],
)
def test_a_slip_costs_no_run(words, grid, message, tmp_path, capfd):
    sweep = Sweep(tmp_path, grid)
    assert sweep(*words) == 2
    error = capfd.readouterr().err
    assert error.startswith("lit-credit sweep: error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"base.yaml", "grid.yaml"}


@pytest.mark.parametrize("words", [["--jobs=x"], ["--gpus=x"], ["--grid"]])
def test_a_word_that_cannot_be_read_gets_one_line(words, tmp_path, capfd):
    with pytest.raises(SystemExit) as stop:
        Sweep(tmp_path, "{a: [1]}")(*words)
    assert stop.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"lit-credit sweep: error: argument {words[0][:6]}")


def test_a_second_sweep_into_one_table_is_refused(tmp_path, capfd):
    """Whatever the table's format: the runs' folder is what they would share."""
    sweep = Sweep(tmp_path, "{a.b: [1]}")
    with hold_folder(tmp_path / "table"):
        for out in ("table.csv", "table.parquet"):
            assert sweep(f"--out={tmp_path / out}") == 2
            assert f"{tmp_path / 'table'} is in use by" in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"base.yaml", "grid.yaml"}


def test_a_cell_waits_for_one_that_a_killed_sweep_left(done, monkeypatch):
    """Until it has ended by itself, its files are not touched."""
    monkeypatch.setattr("lit_credit.cli.sweep.run._PATIENCE", 0)
    monkeypatch.setattr("os.chdir", lambda folder: None)
    folder = done.folder / "table" / "narrow,lr=0.01" / "seed_8"
    cell = Cell("x", Point("x", None, {}), 8, folder, [], "", done.folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before
    with hold_folder(folder), pytest.raises(ValueError, match="is in use by"):
        run_cell(cell)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"values": 3}', "\xff"])
def test_a_damaged_result_is_named(text, tmp_path):
    cell = Cell("x", Point("x", None, {}), 8, tmp_path, [], "", tmp_path)
    assert cell.result() is None
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json: not the result of a run"):
        cell.result()


@pytest.mark.parametrize(
    ("words", "module"), [(["--out=table.parquet"], "pyarrow"), (["--executor=ray"], "ray")]
)
def test_what_is_not_installed_is_named_before_any_run(words, module, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("lit_credit.cli.sweep.command.find_spec", lambda name: None)
    assert Sweep(tmp_path, "{a: [1]}")(*words) == 2
    assert f"needs {module}, which is not installed: `pip" in capfd.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_has_a_column_for_whatever_a_row_has(suffix, tmp_path):
    path = tmp_path / "new" / f"table{suffix}"
    write_rows(path, [{"a": 1, "b": "x", "c": [1]}, {"a": 0.5, "b": 2, "c": None, "d": 0.25}])
    if suffix == ".csv":
        assert path.read_text().splitlines() == ["a,b,c,d", "1,x,[1],", "0.5,2,,0.25"]
    else:
        assert parquet.read_table(path).to_pylist() == [
            {"a": 1, "b": "x", "c": "[1]", "d": None},
            {"a": 0.5, "b": "2", "c": None, "d": 0.25},
        ]


def test_ctrl_c_while_configurations_are_checked_is_no_slip(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_credit.cli.configuration.run", stop)
    assert Sweep(tmp_path, GRID)() == 130
    assert capsys.readouterr().err == "Interrupted. The same command goes on.\n"


@pytest.mark.parametrize(
    ("folder", "earlier", "expected"),
    [
        ("x/seed_7", "", ""),
        ("x/seed_8", "", "BP/seed_7"),
        ("x/seed_7", "BP/seed_7", "BP/seed_7"),  # where an earlier version has put the run
    ],
)
def test_the_folder_of_a_seed_is_the_folder_of_its_run(folder, earlier, expected, tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    root = tmp_path / folder
    if earlier:
        (root / earlier).mkdir(parents=True)
    words = ["fit", f"--config={tmp_path / 'base.yaml'}", "--seed_everything=7"]
    words += [f"--trainer.default_root_dir={root}", "--trainer.enable_progress_bar=false"]
    cli = run(words)
    found = {path.parent for path in root.rglob("metrics.jsonl")}
    assert found == {root / expected} == {Path(cli.trainer.log_dir)}
    assert (root / expected / "checkpoints" / "last.ckpt").exists()
    assert main([*words, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    assert [row["epoch"] for row in read_history(root / expected / "metrics.jsonl")] == [0, 1, 2]

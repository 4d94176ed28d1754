"""``lit-credit clean``."""

import json
import os
import socket
import subprocess
import sys
from zipfile import ZipFile

import pytest
import yaml

from lit_credit.cli import main
from lit_credit.runs.lock import hold_folder
from tests.cli.synthetic_runs import write_run


def checkpoint(path, at):
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w") as file:
        file.writestr("data", "x" * 1000)
    os.utime(path, (at, at))


@pytest.fixture
def run(tmp_path):
    """A finished run with a series of checkpoints and with what a kill leaves behind."""
    folder = write_run(tmp_path / "runs" / "DFA" / "seed_1", "DFA", 1, epochs=3)
    saved = folder / "checkpoints"
    for name in ("step=00000000", "step=00000008", "last-v1", "older.1/step=00000004"):
        checkpoint(saved / f"{name}.ckpt", at=1)
    for name in ("mine", "members/seed_1", "epoch=1-step=24"):
        checkpoint(saved / f"{name}.ckpt", at=1)
    checkpoint(saved / "last.ckpt", at=2)
    for name in ("last.ckpt", "step=00000016.ckpt"):
        (saved / f"{name}.partial").write_bytes(b"half")
    (folder / "metrics.partial").write_bytes(b"half")
    (folder / "notes.partial").write_bytes(b"somebody's")
    return folder


def lock(path, pid, host=None):
    host = host or socket.gethostname()
    path.write_text(json.dumps({"pid": pid, "host": host, "since": "2026-11-29"}))
    return path


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


TEMPORARY = {"checkpoints/last.ckpt.partial", "checkpoints/step=00000016.ckpt.partial"}
TEMPORARY |= {"metrics.partial"}
SERIES = {"checkpoints/step=00000000.ckpt", "checkpoints/step=00000008.ckpt"}
SERIES |= {"checkpoints/last-v1.ckpt", "checkpoints/older.1/step=00000004.ckpt"}
SERIES |= {"checkpoints/epoch=1-step=24.ckpt"}


@pytest.mark.parametrize("options", [[], ["--checkpoints"]], ids=str)
def test_nothing_is_deleted_without_yes(run, options, tmp_path, capsys):
    before = files(tmp_path)
    assert main(["clean", str(tmp_path), *options]) == 0
    assert files(tmp_path) == before
    out = capsys.readouterr().out
    assert all(str(run / name) in out for name in TEMPORARY)
    assert all((str(run / name) in out) == bool(options) for name in SERIES)
    assert "Nothing is deleted. --yes deletes" in out
    assert ("Not listed: 5 files" in out) == (not options)


@pytest.mark.parametrize("options", [[], ["--checkpoints"]], ids=str)
def test_yes_deletes_what_is_listed_and_nothing_else(run, options, tmp_path):
    before = files(run)
    assert main(["clean", str(tmp_path), "--yes", *options]) == 0
    assert before - files(run) == TEMPORARY | (SERIES if options else set())
    assert files(run) <= before
    assert main(["clean", str(tmp_path), "--yes", *options]) == 0


def test_a_clean_folder(tmp_path, capsys):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    assert main(["clean", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing to delete.\n"


def listed(folder, capsys, *options):
    assert main(["clean", str(folder), "--checkpoints", *options]) == 0
    return capsys.readouterr().out


def edit(path, change):
    config = yaml.safe_load(path.read_text())
    change(config["trainer"])
    path.write_text(yaml.safe_dump(config))


BEST = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/loss", "save_top_k": 1}}


def test_checkpoints_chosen_by_a_metric_stay(run, capsys):
    edit(run / "config.yaml", lambda trainer: trainer.update(callbacks=[BEST]))
    out = listed(run, capsys)
    assert "step=00000008.ckpt\n" in out
    assert "epoch=1-step=24.ckpt" not in out


@pytest.mark.parametrize(
    "change",
    [
        {"max_epochs": 9},
        {"max_time": "1:0:0:0", "max_epochs": 9},
        {"max_epochs": -1, "max_steps": 900},
        {"max_epochs": None, "max_steps": 900},
        {"max_epochs": -1},
    ],
)
def test_checkpoints_of_a_run_that_may_be_unfinished_stay(run, change, capsys):
    edit(run / "config.yaml", lambda trainer: trainer.update(change))
    assert "step=00000008.ckpt\n" not in listed(run, capsys)


def test_checkpoints_stay_without_a_whole_last_one(run, capsys):
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-30])
    assert "step=00000008.ckpt\n" not in listed(run, capsys)


def test_checkpoints_after_the_last_one_stay(run, capsys):
    os.utime(run / "checkpoints" / "step=00000008.ckpt", (3, 3))
    out = listed(run, capsys)
    assert "step=00000008.ckpt\n" not in out
    assert "step=00000000.ckpt\n" in out


def test_a_link_is_not_followed(run, tmp_path, capsys):
    target = tmp_path / "elsewhere.ckpt"
    checkpoint(target, at=1)
    (run / "checkpoints" / "step=00000099.ckpt").symlink_to(target)
    assert "step=00000099" not in listed(run, capsys)


HOLD = """
import sys
from pathlib import Path
from lit_credit.runs.lock import hold_folder
with hold_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("above", [0, 2], ids=["run", "sweep"])
def test_a_run_under_way_is_left_alone(run, above, tmp_path, capsys):
    before = files(tmp_path)
    held = run if not above else run.parents[above - 1]
    command = [sys.executable, "-c", HOLD, str(held)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        out = listed(tmp_path, capsys, "--yes")
        holder.communicate("")
    assert f"Left alone: {run}: in use, see {held.with_name(held.name + '.lock')}" in out
    assert "Nothing to delete." in out
    assert files(tmp_path) == before


def test_a_run_that_begins_meanwhile_is_left_alone(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lit_credit.runs.leftovers.locks_above", lambda folder: [])
    before = files(tmp_path)
    with hold_folder(run):
        assert main(["clean", str(tmp_path), "--yes"]) == 1
    assert files(tmp_path) == before
    assert "is in use" in capsys.readouterr().out


def test_locks_of_processes_that_have_ended(run, dead, tmp_path, capsys):
    runs = tmp_path / "runs"
    ended = [lock(run.with_name(f"seed_1.{end}"), dead) for end in ("lock", "cell.lock")]
    ended.append(lock(run / "run.lock", dead))
    ended.append(lock(tmp_path / "runs.lock", dead))
    stays = [
        lock(runs / "a.lock", os.getpid()),
        lock(runs / "b.lock", dead, host="another"),
        lock(runs / "c.lock", "me"),
    ]
    for name, text in (("poetry", "[packages]"), ("empty", ""), ("list", "[]"), ("other", "{}")):
        stays.append(runs / f"{name}.lock")
        stays[-1].write_text(text)
    assert main(["clean", str(runs), "--yes"]) == 0
    assert not any(path.exists() for path in ended)
    assert all(path.exists() for path in stays)
    assert not any(str(path) in capsys.readouterr().out for path in stays)


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere", "no folder"), ("file", "is a file, not a folder")]
)
def test_a_folder_is_expected(name, said, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["clean", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_no_torch_is_loaded(run, tmp_path):
    code = (
        "import sys; from lit_credit.cli import main\n"
        f"main(['clean', {str(tmp_path)!r}, '--checkpoints', '--yes'])\n"
        "print([n for n in ('torch', 'lightning') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout.endswith("\n[]\n")

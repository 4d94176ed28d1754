"""Every spelling of a path means one place, for every reader and writer."""

import re
import warnings
from pathlib import Path

import fsspec
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lit_credit.callbacks import ResidualNorms
from lit_credit.cli import main
from lit_credit.cli.compare import compare
from lit_credit.cli.sweep.command import sweep
from lit_credit.cli.sweep.grid import read_grid
from lit_credit.datamodules import CIFAR10, CharText, TinyShakespeare
from lit_credit.rules import DFA
from lit_credit.runs.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from lit_credit.runs.checkpoints import rows_beside
from lit_credit.runs.files import check_folder
from lit_credit.runs.foreign_weights import load_weights
from lit_credit.runs.history import History, read_history
from lit_credit.runs.run_folder import find_runs
from lit_credit.runs.weight_files import read_saved
from lit_credit.tasks import Classification
from lit_credit.utils.paths import is_remote, local_path
from tests.support import loader, quiet_trainer
from tests.support.resumable import mlp, rule

SPELLINGS = [
    "{home}/x",
    "~/x",
    "$HOME/x",
    "${{HOME}}/x",
    "$PLACE",
    "file://{home}/x",
    "file:{home}/x",
]
SPELLINGS += ["file://~/x", "file://localhost{home}/x", "file://$HOME/x", "/elsewhere/$HOME/x"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own, seen from a working directory that must stay empty."""
    cwd, place = tmp_path / "cwd", tmp_path / "home"
    for folder in (cwd, place):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("PLACE", f"{place}/x")
    monkeypatch.chdir(cwd)
    yield place
    assert list(cwd.iterdir()) == []


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_place(spelling, home):
    text = spelling.format(home=home)
    assert local_path(text) == f"{home}/x"
    assert not is_remote(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/a", "runs/a"),
        ("a/~/b", "a/~/b"),
        ("a:b", "a:b"),
        ("cost$", "cost$"),
        ("C:/x", "C:/x"),
        ("file:///a%20b", "/a b"),
        ("file://a/b", "a/b"),
        ("file:a/b", "a/b"),
        ("a/file:b", "a/file:b"),
        ("s3://bucket/~/$X", "s3://bucket/~/$X"),
        ("memory:/x", "memory://x"),
        (Path("s3://bucket/x"), "s3://bucket/x"),
        ("last", "last"),
    ],
)
def test_what_is_no_spelling_of_a_local_place_stays(text, expected):
    assert local_path(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("$NOT_SET/x", "`root` is '$NOT_SET/x', and the variable NOT_SET is not defined"),
        ("a/${NOT_SET}b", "the variable NOT_SET is not defined"),
        ("~nobody_at_all/x", "no user 'nobody_at_all' is known"),
    ],
)
def test_what_is_not_defined_is_refused_by_name(text, says, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ValueError, match=re.escape(says)):
        local_path(text, "root")
    with pytest.raises(ValueError, match=r"is not defined|is known"):
        CIFAR10(root=text)


def test_a_folder_that_is_there_by_that_very_name_is_meant(tmp_path):
    (tmp_path / "$a$b").mkdir()
    assert local_path(tmp_path / "$a$b" / "out") == f"{tmp_path}/$a$b/out"


SHORT = [spelling for spelling in SPELLINGS if "localhost" not in spelling]


@pytest.mark.parametrize("spelling", SHORT)
def test_readers_and_writers_agree(spelling, home):
    text = spelling.format(home=home)
    place = home / "x"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": {"w": torch.ones(1)}, "global_step": 3}, f"{text}/a.ckpt")
    assert [path.name for path in place.iterdir()] == ["a.ckpt"]
    assert read_checkpoint(f"{text}/a.ckpt")["global_step"] == 3
    assert read_saved(f"{text}/a.ckpt")["state_dict"]["w"] == 1
    net = torch.nn.Module()
    net.w = torch.nn.Parameter(torch.zeros(1))
    load_weights(net, f"{text}/a.ckpt")
    assert net.w == 1
    io.remove_checkpoint(f"{text}/a.ckpt")
    assert list(place.iterdir()) == []
    History(Path(f"{text}/norms.jsonl")).append(1, 0, "norms", {"a": 1.0})
    assert len(read_history(f"{text}/norms.jsonl")) == 1
    assert len(rows_beside(f"{text}/a.ckpt", "norms")) == 1
    (place / "text.txt").write_text("abc" * 40)
    assert CharText(path=f"{text}/text.txt").read() == "abc" * 40
    assert CIFAR10(root=text).root == str(place)
    assert TinyShakespeare(root=text).file == place / "tinyshakespeare" / "input.txt"
    check_folder(f"{text}/new")
    (place / "grid.yaml").write_text("{a: [1, 2]}")
    assert len(read_grid(f"{text}/grid.yaml")[0]) == 2
    assert find_runs([text]) == [place]  # a history without a configuration
    (place / "norms.jsonl").unlink()
    with pytest.raises(ValueError, match=f"no run in '{place}'"):
        find_runs([text])


@pytest.mark.parametrize("spelling", ["~/x", "$HOME/x", "file://{home}/x"])
def test_a_run_of_python_lies_in_one_place(spelling, home):
    """Also what Lightning leaves as it is, or makes absolute in its own way."""
    text = spelling.format(home=home)
    saves = ModelCheckpoint(f"{text}/saves", filename="last", enable_version_counter=False)
    trainer = quiet_trainer(
        default_root_dir=text,
        callbacks=[ResidualNorms(figure=False), saves],
        enable_checkpointing=True,
        max_epochs=1,
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(rule(), loader())
    trainer.save_checkpoint(f"{text}/by_hand.ckpt")
    files = {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()}
    assert files == {"x/saves/last.ckpt", "x/by_hand.ckpt", "x/residual_norms.jsonl"}
    DFA.load_from_checkpoint(f"{text}/by_hand.ckpt", net=mlp(), task=Classification(5))
    resumed = quiet_trainer(max_epochs=2, plugins=[AtomicCheckpointIO()])
    resumed.fit(rule(), loader(), ckpt_path=f"{text}/by_hand.ckpt")
    assert resumed.global_step == 12


def test_urls_go_to_fsspec_and_leave_no_folder_of_their_name(home):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"global_step": 3}, "memory://run/a.ckpt")
    assert fsspec.filesystem("memory").exists("/run/a.ckpt")
    assert read_checkpoint("memory://run/a.ckpt")["global_step"] == 3
    io.remove_checkpoint("memory://run/a.ckpt")
    assert not fsspec.filesystem("memory").exists("/run/a.ckpt")
    logger = CSVLogger("memory://logs", name="a", version="b")
    norms = ResidualNorms(figure=False)
    trainer = quiet_trainer(max_epochs=1, logger=logger, callbacks=[norms])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(rule(), loader())
    assert any("is no local folder" in str(warning.message) for warning in caught)
    assert norms.history.rows


WORDS = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
WORDS += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=1"]
WORDS += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
WORDS += ["--trainer.limit_train_batches=1", "--trainer.max_epochs=1"]
ENTRIES = {
    "default_root_dir": (["--trainer.default_root_dir={}"], "BP/seed_42/metrics.jsonl"),
    "save_dir": (
        ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir={}", "--trainer.logger.name=a"],
        "a/version_0/metrics.jsonl",
    ),
    "dirpath": (
        [
            "--trainer.callbacks+=ModelCheckpoint",
            "--trainer.callbacks.dirpath={}",
            "--trainer.callbacks.every_n_train_steps=1",
        ],
        "epoch=0-step=1.ckpt",
    ),
}


@pytest.mark.parametrize("spelling", ["~/x", "$PLACE", "file://{home}/x"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_run_of_the_command_line_lies_in_one_place(entry, spelling, home):
    extra, file = ENTRIES[entry]
    text = spelling.format(home=home)
    words = [word.format(text) for word in extra]
    if entry != "default_root_dir":
        words.append(f"--trainer.default_root_dir={home / 'root'}")
    assert main([*WORDS, *words]) == 0
    assert (home / "x" / file).is_file()
    (config,) = home.rglob("config.yaml")
    assert text in config.read_text()  # as it was written, for other machines
    if entry == "default_root_dir":
        path = f"{text}/BP/seed_42/checkpoints/last.ckpt"
        assert main([*WORDS, *words, "--trainer.max_epochs=2", f"--ckpt_path={path}"]) == 0
        assert "BP" in str(compare([text], f"{text}/out"))
        assert (home / "x" / "out" / "comparison.csv").is_file()


def test_an_undefined_variable_is_told_in_a_line(home, capsys):
    assert main([*WORDS, "--trainer.default_root_dir=$NOT_SET/x"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "`trainer.default_root_dir` is '$NOT_SET/x', and the variable NOT_SET" in line


def test_a_sweep_writes_and_reads_one_place(home):
    (home / "base.yaml").write_text("seed_everything: 1")
    (home / "grid.yaml").write_text("{seed_everything: [1]}")
    rows = sweep(["~/base.yaml"], "$HOME/grid.yaml", "~/x/table.csv", words=WORDS[1:], jobs=1)
    assert [row["status"] for row in rows] == ["finished"]
    assert (home / "x" / "table.csv").is_file()
    assert list((home / "x" / "table").rglob("last.ckpt"))

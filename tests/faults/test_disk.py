"""A disk that is full, a folder that takes no files."""

import errno
import os
import resource
import shutil
import tempfile

import pytest
import torch

from lit_credit.cli import main
from lit_credit.runs import checkpoint_io
from lit_credit.runs.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from lit_credit.runs.files import check_folder
from lit_credit.runs.history import History, read_history
from tests.support.resumable import fit, histories, last, rule, same

FULL = "/dev/full"
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="Linux has it")


def add(history, step):
    history.append(step, 0, "a", {"a/x": float(step)})


def steps(path):
    return [row["step"] for row in read_history(path)]


@needs_full
def test_rows_that_a_full_disk_refuses_are_written_later(tmp_path):
    path = tmp_path / "a.jsonl"
    history = History(path)
    add(history, 0)
    path.rename(tmp_path / "aside")
    path.symlink_to(FULL)
    with pytest.warns(UserWarning, match=r"a\.jsonl cannot be written: No space left"):
        add(history, 1)
    add(history, 2)  # warned once: a second warning would be an error here
    path.unlink()
    (tmp_path / "aside").rename(path)
    add(history, 3)
    assert steps(path) == [0, 1, 2, 3]
    assert [row["step"] for row in history.rows] == [0, 1, 2, 3]


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    """A limit on the size of files cuts a line, as a full disk does."""
    history = History(tmp_path / "a.jsonl")
    add(history, 0)
    size = history.path.stat().st_size
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, old[1]))
        with pytest.warns(UserWarning, match="File too large"):
            add(history, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert history.path.stat().st_size == size
    with history.path.open("a") as file:
        file.write('{"step": 1, "ep')  # what a kill leaves
    add(history, 2)
    assert steps(history.path) == [0, 1, 2]


def longer(path):
    path.write_text(" " + path.read_text())


def test_a_history_that_somebody_has_changed_is_written_whole(tmp_path):
    history = History(tmp_path / "a.jsonl")
    for step, spoil in enumerate((None, os.remove, lambda path: os.truncate(path, 5), longer)):
        if spoil:
            spoil(history.path)
        add(history, step)
        assert steps(history.path) == list(range(step + 1))


@needs_full
def test_a_run_on_a_full_disk_ends_and_resumes_with_all_of_its_rows(tmp_path):
    """Histories, table and figure cannot be written; the checkpoint can, and has the rows."""
    module = rule()
    fit(module, tmp_path / "whole")
    folder = tmp_path / "full"

    class Fills(checkpoint_io.AtomicCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            super().save_checkpoint(checkpoint, path, storage_options)
            if (file := folder / "residual_norms.jsonl").is_symlink():
                return
            file.unlink()
            file.symlink_to(FULL)

    with pytest.warns(UserWarning, match=r"residual_norms\.jsonl cannot be written"):
        fit(rule(), folder, plugins=[Fills()], max_epochs=2)
    (folder / "residual_norms.jsonl").unlink()
    resumed = rule()
    fit(resumed, folder, ckpt_path=last(folder))
    same(resumed.state_dict(), module.state_dict())
    assert histories(folder) == histories(tmp_path / "whole")


def test_a_figure_that_cannot_be_written_is_spared(tmp_path):
    from lit_credit.callbacks import GradientNorms, ResidualNorms

    (tmp_path / "figures").write_text("no folder")
    warnings = pytest.warns(UserWarning, match=r"residual_norms\.png is not written: (File|Not a)")
    module = rule()
    with warnings, pytest.warns(UserWarning, match=r"gradient_norms\.png is not written"):
        fit(module, tmp_path, before=[ResidualNorms(), GradientNorms()])
    assert last(tmp_path).exists()


# Folders


@pytest.mark.parametrize("command", ["fit", "python"])
def test_a_folder_below_a_file_is_refused_before_training(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "runs"
    if command == "python":
        module = rule()
        state = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(ValueError, match=f"{folder} cannot be written: .*file is no folder"):
            fit(module, folder)
        same(module.state_dict(), state)
        return
    words = ["fit", "--config", "configs/residual_explosion/bp.yaml", "--trainer.accelerator=cpu"]
    assert main([*words, "--trainer.default_root_dir", str(folder)]) == 1
    error = capsys.readouterr().err
    assert f"{folder}/BP/seed_42 cannot be written: {tmp_path}/file is no folder." in error
    assert error.count("\n") == 1


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    check_folder(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match=f"{tmp_path} is read-only.*default_root_dir"):
        check_folder(tmp_path / "new")


# Checkpoints


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
        with pytest.raises(OSError, match=r"a checkpoint is not saved; the older.*last\.ckpt") as e:
            AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert e.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_until_a_checkpoint_is_whole_the_old_one_stands(tmp_path, monkeypatch):
    """Whenever a kill comes, `last.ckpt` is one of the two; what is left over does no harm."""
    path = tmp_path / "last.ckpt"
    save = AtomicCheckpointIO().save_checkpoint
    save({"a": torch.zeros(3)}, path)
    replace = os.replace

    def before_the_kill(source, target):
        assert read_checkpoint(source)["a"].tolist() == [1, 1, 1]
        assert read_checkpoint(target)["a"].tolist() == [0, 0, 0]
        assert source.parent == target.parent
        shutil.copy(source, tmp_path / "kept")
        replace(source, target)

    monkeypatch.setattr(os, "replace", before_the_kill)
    save({"a": torch.ones(3)}, path)
    monkeypatch.undo()
    (tmp_path / "kept").rename(tmp_path / "last.ckpt.partial")
    save({"a": torch.full((3,), 2.0)}, path)
    assert read_checkpoint(path)["a"].tolist() == [2, 2, 2]
    assert os.listdir(tmp_path) == ["last.ckpt"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_save_leaves_nothing_behind(stop, tmp_path, monkeypatch):
    def fail(*_):
        raise stop

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(stop):
        AtomicCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "last.ckpt")
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_never_passes_through_another_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_, **__: pytest.fail("a temporary file"))
    AtomicCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "new" / "a.ckpt")
    assert read_checkpoint(tmp_path / "new" / "a.ckpt") == {"a": 1}


def test_a_folder_is_no_checkpoint(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "checkpoints" / "a.ckpt")
    with pytest.raises(ValueError, match=r"is a folder, expected a file\..*checkpoints/a\.ckpt"):
        read_checkpoint(tmp_path)


def test_another_checkpoint_io_is_left_alone():
    from lightning.fabric.plugins import TorchCheckpointIO

    from tests.support import quiet_trainer

    class Own(TorchCheckpointIO):
        pass

    for plugins, kind in (([], AtomicCheckpointIO), ([Own()], Own)):
        trainer = quiet_trainer(plugins=plugins)
        checkpoint_io.save_atomically(trainer)
        assert type(trainer.strategy.checkpoint_io) is kind


def test_the_command_line_says_how_to_go_on_after_a_full_disk(monkeypatch, capsys):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lit_credit.cli.fit.run", fail)
    assert main(["fit", "--config", "configs/rules/dfa.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device. Make room" in line
    assert "`--ckpt_path last`" in line

"""`--ckpt_path last` goes on with the run, whatever saves it, or says why not."""

import shutil

import pytest
import torch
import yaml

from lit_credit.cli import main
from lit_credit.runs.history import read_history
from lit_credit.runs.run_folder import newest_config, read_run

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # of a copied run
    pytest.mark.filterwarnings("ignore:Experiment logs directory"),  # of CSVLogger, when resumed
]

BASE = ["--model=BP", "--model.task=Classification", "--data=Digits"]
BASE += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=1"]
BASE += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1"]
BASE += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
BASE += ["--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1"]
SAVES = ["--trainer.callbacks=MetricHistory", "--trainer.callbacks+=ModelCheckpoint"]


def saves(**arguments):
    return [*SAVES, *(f"--trainer.callbacks.{name}={value}" for name, value in arguments.items())]


def fit(folder, epochs, *words):
    place = [f"--trainer.default_root_dir={folder}", f"--trainer.max_epochs={epochs}"]
    return main(["fit", *BASE, *place, *map(str, words)])


def refusal(capsys):
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lit-credit: error: ")
    return line


def contents(folder):
    """All files but TensorBoard's, whose writer begins one before anything is restored."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if "tfevents" not in path.name}


def run_of(folder):
    return folder / "BP" / "seed_42"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    assert fit(folder, 2) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


WAYS = {
    "another filename": saves(filename="mine"),
    "every_n_train_steps": saves(every_n_train_steps=3),
    "the best two": saves(monitor="val/accuracy", mode="max", save_top_k=2),
    "all, with last": saves(save_top_k=-1, save_last="true"),
    "another folder": saves(dirpath="{tmp}/elsewhere", filename="a"),
    "no logger": ["--trainer.logger=false", *saves(filename="b")],
    "a logger of tables": [
        *("--trainer.logger=CSVLogger", "--trainer.logger.save_dir={tmp}/csv"),
        *("--trainer.logger.name=n", "--trainer.logger.version=v", *saves(filename="c")),
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_last_is_the_newest_of_whatever_saves_the_run(way, tmp_path):
    words = [word.format(tmp=tmp_path) for word in WAYS[way]]
    assert fit(tmp_path / "run", 2, *words) == 0
    (first,) = tmp_path.rglob("metrics.jsonl")
    assert fit(tmp_path / "run", 4, *words, "--ckpt_path=last") == 0
    assert [path.name for path in first.parent.glob("metrics*")].count("metrics.1.jsonl") == 0
    steps = [row["step"] for row in read_history(first)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 16
    taken = [
        torch.load(path, weights_only=True)["global_step"] for path in tmp_path.rglob("*.ckpt")
    ]
    assert max(taken) in (15, 16)


def test_the_newest_is_that_of_most_steps(run, capsys):
    """A copy of an old one, put back by a backup, has a newer date."""
    folder = run_of(run) / "checkpoints"
    old = torch.load(folder / "last.ckpt", weights_only=True)
    torch.save({**old, "global_step": 1}, folder / "old.ckpt")
    assert fit(run, 3, "--ckpt_path=last") == 0
    assert [r["step"] for r in read_history(run_of(run) / "metrics.jsonl")] == [0, 4, 8, 12]


def test_a_truncated_newest_is_named_with_the_one_before(run, capsys):
    folder = run_of(run) / "checkpoints"
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "newer.ckpt").write_bytes(whole[:-200])
    assert fit(run, 3, "--ckpt_path=last") == 1
    line = refusal(capsys)
    assert f"newer.ckpt ({len(whole) - 200} bytes) is cut off" in line
    assert f"of step 8: `--ckpt_path {folder / 'last.ckpt'}`" in line
    assert fit(run, 3, f"--ckpt_path={folder / 'last.ckpt'}") == 0


def test_a_fresh_folder_starts_anew(tmp_path):
    assert fit(tmp_path, 1, "--ckpt_path=last") == 0
    assert fit(tmp_path, 2, "--ckpt_path=last") == 0
    assert len(read_history(run_of(tmp_path) / "metrics.jsonl")) == 3


def test_a_run_that_has_taken_no_step_starts_over(run):
    """Killed in its first measurement, or in its first epoch with the rows of step 0 alone."""
    folder = run_of(run)
    shutil.rmtree(folder / "checkpoints")
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text(rows[0] + "\n")
    (folder / "test.jsonl").unlink()
    assert fit(run, 1, "--ckpt_path=last") == 0
    assert len(read_history(folder / "metrics.jsonl")) == 2
    assert len(read_history(folder / "metrics.1.jsonl")) == 1


def no_checkpoint(folder):
    shutil.rmtree(folder / "checkpoints")


def no_history(folder):
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.jsonl").unlink()
    (folder / "test.jsonl").unlink()


def weights_only(folder):
    path = folder / "checkpoints" / "last.ckpt"
    kept = torch.load(path, weights_only=True)
    del kept["optimizer_states"]
    torch.save(kept, path)


def another_rule(folder):
    path = folder / "checkpoints" / "last.ckpt"
    kept = torch.load(path, weights_only=True)
    torch.save({**kept, "lit_credit": {**kept["lit_credit"], "rule": "FA"}}, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (no_checkpoint, "holds a run of 8 steps or more, but no checkpoint"),
        (no_history, "holds the configuration of a run, but no checkpoint"),
        (weights_only, "holds last.ckpt, of weights without the state of a run"),
        (another_rule, "holds last.ckpt, of rule FA, seed 42"),
    ],
)
def test_a_run_of_which_nothing_can_be_taken_is_not_started_over(change, says, run, capsys):
    change(run_of(run))
    before = contents(run)
    assert fit(run, 3, "--ckpt_path=last") == 1
    assert says in refusal(capsys)
    assert contents(run) == before


def test_a_logger_that_numbers_runs_is_not_started_over(tmp_path, capsys):
    words = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}"]
    assert fit(tmp_path, 1, *words, "--ckpt_path=last") == 0
    assert fit(tmp_path, 2, *words, "--ckpt_path=last") == 1
    line = refusal(capsys)
    assert "version_0" in line
    assert not list(tmp_path.rglob("version_1"))


def test_words_that_this_process_cannot_know_are_refused(run, tmp_path, capsys):
    assert fit(run, 3, "--ckpt_path=best") == 1
    assert "checkpoints/last.ckpt" in refusal(capsys)
    new = [*BASE, f"--trainer.default_root_dir={tmp_path / 'new'}"]
    for command in ("validate", "test", "predict"):
        assert main([command, *new, "--ckpt_path=last"]) == 1
        assert "holds no checkpoint of BP" in refusal(capsys)
    assert fit(run, 3, "--ckpt_path=hpc") == 1
    assert "no HPC checkpoint was found" in refusal(capsys)
    assert fit(run, 3, "--ckpt_path=last", "--on_resume=new") == 1
    assert "expected one of refuse, configured, checkpoint" in refusal(capsys)


CHANGES = {
    "--model.optimizer.lr=0.2": "optimizer.lr 0.1 there, 0.2 here",
    "--model.clip_norm=0.5": "clip_norm none there, 0.5 here",
    "--model.lr_scheduler=StepLR {}.step_size=3": "lr_scheduler none there",
    "--data.batch_size=16": "data.batch_size 128 there, 16 here",
    "--data.seed=3": "data.seed none there, 3 here",
    "--trainer.precision=64-true": "trainer.precision 32-true there, 64-true here",
    "--model.net.width=64": "does not fit",
}


def spelled(change):
    first, _, rest = change.partition(" ")
    return [first, *([rest.format(first.partition("=")[0])] if rest else [])]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_configuration_is_refused_and_nothing_is_written(change, run, capsys):
    before = contents(run)
    assert fit(run, 3, "--ckpt_path=last", *spelled(change)) == 1
    assert CHANGES[change] in refusal(capsys)
    assert contents(run) == before


def test_the_configured_values_act_and_are_written_down(run):
    words = ["--ckpt_path=last", "--on_resume=configured", "--data.batch_size=16"]
    words += ["--model.optimizer.lr=0.2", "--model.clip_norm=0.5"]
    first = (run_of(run) / "config.yaml").read_bytes()
    assert fit(run, 3, *words) == 0
    saved = torch.load(run_of(run) / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 0.2
    assert saved["global_step"] == 12
    assert (run_of(run) / "config.yaml").read_bytes() == first
    config = yaml.safe_load((run_of(run) / "config-1.yaml").read_text())
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.2
    # From then on they are those of the checkpoint.
    assert fit(run, 4, *(word for word in words if "on_resume" not in word)) == 0


def test_with_those_of_the_checkpoint_the_file_says_what_is_run(run, tmp_path):
    words = ["--ckpt_path=last", "--on_resume=checkpoint", "--data.batch_size=16"]
    words += ["--model.optimizer.lr=0.2", "--model.clip_norm=0.5", "--model.net.width=64"]
    assert fit(run, 3, *words) == 0
    assert fit(tmp_path / "whole", 3) == 0
    states = [
        torch.load(run_of(folder) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, tmp_path / "whole")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    config = yaml.safe_load(newest_config(run_of(run)).read_text())
    assert config["trainer"]["max_epochs"] == 3
    whole = yaml.safe_load((run_of(tmp_path / "whole") / "config.yaml").read_text())
    assert config["model"] == whole["model"]
    assert config["data"] == whole["data"]


def test_the_first_configuration_stays_and_the_newest_counts(run):
    folder = run_of(run)
    first = (folder / "config.yaml").read_bytes()
    assert fit(run, 2, "--ckpt_path=last") == 0
    assert not list(folder.glob("config-*"))
    for number, epochs in enumerate((3, 4), 1):
        assert fit(run, epochs, "--ckpt_path=last") == 0
        assert (folder / f"config-{number}.yaml").exists()
        assert read_run(folder).max_epochs == epochs
        assert not read_run(folder).unfinished
    assert (folder / "config.yaml").read_bytes() == first

"""Loggers: none, several, and those that keep the runs of a project in one place."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from lit_credit.callbacks import ResidualNorms
from lit_credit.runs.history import read_history
from tests.support import Validated, events, files
from tests.support.watched import UNITS, fit

TAGS = {f"residual/norm/L0{index}" for index in range(4)}
FILES = ["figures/residual_norms.png", "residual_norms.jsonl"]


def run(folder, logger):
    callback = ResidualNorms(units=UNITS, n_samples=7)
    fit(folder, Validated(), callback, logger=logger)
    return callback.history.rows


def test_each_of_several_loggers_has_all_scalars(tmp_path):
    loggers = [
        TensorBoardLogger(tmp_path / "board", name="", version=""),
        CSVLogger(tmp_path / "csv", name="", version=""),
    ]
    rows = run(tmp_path, loggers)
    board = events(tmp_path / "board")
    lines = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").read_text().splitlines()))
    for tag in TAGS:
        expected = [(row["step"], pytest.approx(row["values"][tag])) for row in rows]
        assert [(e.step, e.value) for e in board.Scalars(tag)] == expected
        assert [(int(x["step"]), float(x[tag])) for x in lines if x[tag]] == expected
    assert board.Tags()["images"] == ["residual/figure"]
    # Histories and figures are in the first one's folder.
    assert set(FILES) <= set(files(tmp_path / "board"))
    assert not set(FILES) & set(files(tmp_path / "csv"))


class OnServer(Logger):
    """As that of W&B: one folder for all runs, and images by name."""

    def __init__(self, save_dir, version):
        super().__init__()
        self._save_dir, self._version = save_dir, version
        self.scalars, self.images = [], []

    name, save_dir, version = (
        "project",
        property(lambda s: s._save_dir),
        property(lambda s: s._version),
    )

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.scalars.append((step, metrics))

    def log_image(self, key, images, step=None):
        self.images.append((key, [type(image).__name__ for image in images], step))


def test_runs_that_share_a_folder_do_not_share_histories(tmp_path):
    for version, place in (("one", tmp_path / "project" / "one"), (2, "project/version_2")):
        logger = OnServer(tmp_path, version)
        rows = run(tmp_path, logger)
        assert files(tmp_path / place) == FILES
        assert read_history(tmp_path / place / FILES[1]) == rows
        assert [step for step, found in logger.scalars if set(found) >= TAGS] == [0, 4]
        assert logger.images == [("residual/figure", ["Figure"], 4)]


def test_a_logger_without_files_leaves_histories_in_the_root(tmp_path):
    run(tmp_path, OnServer(None, "one"))
    assert files(tmp_path / "project" / "one") == FILES


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="study", save_dir=tmp_path, offline=True)
    run(tmp_path, logger)
    assert files(tmp_path / "study" / logger.version) == FILES
    (record,) = tmp_path.rglob("*.wandb")
    logger.experiment.finish()
    assert record.read_bytes().count(b"residual/norm/L00") >= 2
    assert [p.suffix for p in tmp_path.rglob("media/images/residual/*")] == [".png"]


def test_mlflow_in_files(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'ml'}")
    rows = run(tmp_path, logger)
    own = Path(logger.save_dir, logger.name, logger.version)
    assert set(FILES) <= set(files(own))
    found = logger.experiment.get_metric_history(logger.version, "residual/norm/L00")
    assert [(m.step, m.value) for m in found] == [
        (row["step"], row["values"]["residual/norm/L00"]) for row in rows
    ]

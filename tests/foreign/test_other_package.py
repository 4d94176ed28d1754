"""Projects of `pytorch_lightning`: callbacks do there what they do under `lightning.pytorch`."""

import math
import pickle
from types import ModuleType

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import yaml
from lightning.pytorch import seed_everything
from pytorch_lightning.cli import LightningCLI
from torch.nn import functional as F

import lit_credit.callbacks
from lit_credit.callbacks import (
    FiniteGuard,
    GradientNorms,
    PartFreezing,
    ResidualNorms,
    StagedTraining,
)
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from tests import support
from tests.callbacks.test_contract import CALLBACKS, SCHEDULED, net_for, on_foreign
from tests.support import same_state

OURS, THEIRS = lightning.pytorch, pytorch_lightning


def module_of(package: ModuleType, net=support.NoisyNet):
    class Foreign(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = net()

        def forward(self, x):
            return self.model(x)

        def training_step(self, batch, batch_idx):
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", F.cross_entropy(self.model(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    seed_everything(1, verbose=False)
    return Foreign()


def data_of(package: ModuleType):
    class Data(package.LightningDataModule):
        def train_dataloader(self):
            return support.shuffled()

        def val_dataloader(self):
            return package.utilities.CombinedLoader([support.val_loader()], "sequential")

        def contexts(self):
            return support.Data().contexts()

    return Data()


def fit(package, folder, *callbacks, net=support.NoisyNet, module=None, loggers_of=None, **kwargs):
    """Train by the Trainer of a package, with TensorBoard of that or another one."""
    logger = (loggers_of or package).loggers.TensorBoardLogger(folder, name="", version="")
    module = module_of(package, net) if module is None else module
    options = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    trainer = package.Trainer(logger=logger, callbacks=list(callbacks), **(options | kwargs))
    trainer.fit(module, datamodule=data_of(package))
    return module


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Nets trained by their Trainer without callbacks."""
    nets = {net_for(kind) for kind in CALLBACKS} | {support.NoisyNet}
    return {net: fit(THEIRS, tmp_path_factory.mktemp("bare"), net=net) for net in nets}


# WeightAlignment needs a rule, which is of lightning.pytorch.
@pytest.mark.parametrize("kind", [k for k in CALLBACKS if k.__name__ != "WeightAlignment"])
def test_rows_are_those_under_lightning_pytorch_and_training_is_the_same(kind, bare, tmp_path):
    found = {}
    for package in (OURS, THEIRS):
        folder = tmp_path / package.__name__
        module = fit(package, folder, on_foreign(kind), net=net_for(kind))
        assert same_state(module, bare[net_for(kind)])
        found[package] = (folder / f"{kind.name}.jsonl").read_text()
    assert found[OURS] == found[THEIRS]
    # MetricHistory has one row, after the validation.
    assert len(found[THEIRS].splitlines()) == (2 if kind in SCHEDULED else 1)


@pytest.mark.parametrize(
    "make",
    [
        FiniteGuard,
        lambda: PartFreezing(["model.embed"]),
        lambda: StagedTraining([["model.embed"], ["model.head"]]),
    ],
    ids=["FiniteGuard", "PartFreezing", "StagedTraining"],
)
def test_callbacks_that_act_do_the_same(make, tmp_path):
    one, other = (fit(p, tmp_path / p.__name__, make(), max_epochs=2) for p in (OURS, THEIRS))
    assert same_state(one, other)


def test_an_update_that_is_not_finite_is_left_out(tmp_path):
    guard, module = FiniteGuard(policy="skip"), module_of(THEIRS)
    module.model.head.bias.register_hook(lambda gradient: gradient * math.nan)
    with pytest.warns(UserWarning, match="training is not finite"):
        fit(THEIRS, tmp_path, guard, module=module)
    assert guard.skipped == 4
    assert "finite/skipped" in support.events(tmp_path).Tags()["scalars"]


def test_figures_scalars_and_text_reach_their_tensorboard(tmp_path):
    callback = ResidualNorms(units=["model.blocks.*", "model.head"], n_samples=7)
    fit(THEIRS, tmp_path, callback)
    events = support.events(tmp_path)
    assert "residual/figure" in events.Tags()["images"]
    assert len(events.Scalars("residual/norm/L00")) == 2
    assert (tmp_path / "figures" / "residual_norms.png").is_file()


@pytest.mark.parametrize(("package", "other"), [(OURS, THEIRS), (THEIRS, OURS)])
def test_a_logger_of_one_package_beside_a_trainer_of_the_other(package, other, tmp_path):
    callback = ResidualNorms(units=["model.blocks.*", "model.head"], n_samples=7)
    fit(package, tmp_path, callback, loggers_of=other)
    assert "residual/figure" in support.events(tmp_path).Tags()["images"]
    assert len(read_history(tmp_path / "residual_norms.jsonl")) == 2


def test_their_cli_takes_callbacks_from_a_yaml(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    callbacks = [
        {
            "class_path": "lit_credit.callbacks.ResidualNorms",
            "init_args": {"units": ["model.blocks.*", "model.head"], "n_samples": 7},
        },
        {"class_path": "lit_credit.callbacks.MetricHistory"},
        {"class_path": "lit_credit.callbacks.FiniteGuard", "init_args": {"policy": "skip"}},
    ]
    trainer = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "default_root_dir": str(tmp_path),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
        "callbacks": callbacks,
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": trainer}))
    module, data = type(module_of(THEIRS)), type(data_of(THEIRS))
    cli = LightningCLI(
        module,
        data,
        args=["fit", "--config", str(config)],
        save_config_callback=None,
        seed_everything_default=1,
    )
    assert type(cli.trainer) is THEIRS.Trainer
    assert len(read_history(tmp_path / "residual_norms.jsonl")) == 2
    assert len(read_history(tmp_path / "metrics.jsonl")) == 1


@pytest.mark.parametrize("name", lit_credit.callbacks.__all__)
def test_every_callback_is_one_of_both_packages(name):
    kind = getattr(lit_credit.callbacks, name)
    assert issubclass(kind, OURS.Callback)
    assert issubclass(kind, THEIRS.Callback)


def test_a_resumed_run_goes_on_with_its_rows(tmp_path):
    def run(name, epochs, ckpt_path=None):
        kind, folder = THEIRS.callbacks.ModelCheckpoint, tmp_path / name
        checkpoint = kind(folder, filename="{epoch}", save_top_k=-1)
        callback = GradientNorms(units=["model.embed", "model.blocks.*"], n_samples=7)
        trainer = THEIRS.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[checkpoint, pickle.loads(pickle.dumps(callback))],
        )
        loaders = support.train_loader(), support.val_loader()
        trainer.fit(module_of(THEIRS), *loaders, ckpt_path=ckpt_path)
        return (folder / "gradient_norms.jsonl").read_text()

    first = run("cut", 1)
    resumed = run("cut", 2, tmp_path / "cut" / "epoch=0.ckpt")
    assert resumed.startswith(first)
    assert [row["step"] for row in read_history(tmp_path / "cut" / "gradient_norms.jsonl")] == [
        0,
        4,
        8,
    ]


@pytest.mark.parametrize("kind", ["FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"])
def test_their_strategies_that_shard_are_refused(kind, tmp_path):
    trainer = THEIRS.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer._accelerator_connector.strategy = object.__new__(getattr(THEIRS.strategies, kind))
    with pytest.raises(OURS.utilities.exceptions.MisconfigurationException, match=f"under {kind}"):
        ResidualNorms(units=["model.blocks.*"]).setup(trainer, module_of(THEIRS), "fit")


def test_a_rule_says_which_package_it_is_of(tmp_path):
    words = "BP is a rule, .*`lightning.pytorch`.*Trainer is of `pytorch_lightning`"
    with pytest.raises(OURS.utilities.exceptions.MisconfigurationException, match=words):
        fit(THEIRS, tmp_path, module=support.rule(BP))

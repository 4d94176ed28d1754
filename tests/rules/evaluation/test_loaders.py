"""Several validation and test loaders under a rule."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import CombinedLoader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_credit.callbacks import MetricHistory
from lit_credit.cli.compare import compare
from lit_credit.datamodules import TensorLoader
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import read_history
from lit_credit.tasks import Classification
from tests.support import images, loader, quiet_trainer, seeded
from tests.support.resumable import mlp


def data(seed, n=40):
    return TensorLoader(images(n, seed=seed), batch_size=16, seed=0)


class Data(LightningDataModule):
    """Validation and test loaders as given."""

    def __init__(self, loaders):
        super().__init__()
        self.loaders = loaders

    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return self.loaders

    test_dataloader = val_dataloader


def fit(loaders, *callbacks, rule=None, **kwargs):
    module = rule or seeded(lambda: DFA(mlp(), Classification(5)))
    options = {"max_epochs": 2, "callbacks": list(callbacks), "num_sanity_val_steps": -1}
    trainer = quiet_trainer(**(options | kwargs))
    trainer.fit(module, datamodule=Data(loaders))
    return trainer, module


def by_hand(module, seed):
    """Loss and accuracy on all samples at once."""
    x, y = images(40, seed=seed)
    with torch.no_grad():
        output = module.net(x)
    loss = torch.nn.functional.cross_entropy(output, y)
    return loss.item(), (output.argmax(1) == y).float().mean().item()


@pytest.mark.parametrize(
    ("loaders", "ending"),
    [
        (lambda: {"id": data(1), "ood": data(2)}, "/ood"),
        (lambda: [data(1), data(2)], "/1"),
        (lambda: {"near": data(1), "far": [data(2), data(3)]}, "/far/0"),
        (lambda: {"v1": data(1), "v1.1": data(2)}, "/v1.1"),
    ],
)
def test_each_loader_has_metrics_of_its_own(loaders, ending):
    trainer, module = fit(loaders())
    logged = trainer.callback_metrics
    for seed, end in ((1, ""), (2, ending)):
        loss, accuracy = by_hand(module, seed)
        assert logged[f"val/loss{end}"].item() == pytest.approx(loss, rel=1e-5)
        assert logged[f"val/accuracy{end}"].item() == pytest.approx(accuracy)
        assert logged[f"hp/accuracy{end}"].item() == pytest.approx(accuracy)
    assert not [name for name in logged if "dataloader_idx" in name]
    tested = trainer.test(module, datamodule=trainer.datamodule, verbose=False)
    loss, accuracy = by_hand(module, 2)
    found = {name: value for part in tested for name, value in part.items()}
    assert found[f"test/loss{ending}"] == pytest.approx(loss, rel=1e-5)
    assert found[f"test/accuracy{ending}"] == pytest.approx(accuracy)
    # Not those of the fit.
    again = trainer.validate(module, [data(3), data(1)], verbose=False)
    assert again[0]["val/loss"] == pytest.approx(by_hand(module, 3)[0], rel=1e-5)
    assert again[1]["val/loss/1"] == pytest.approx(by_hand(module, 1)[0], rel=1e-5)


@pytest.mark.parametrize("loaders", [lambda: data(1), lambda: {"ood": data(1)}, lambda: [data(1)]])
def test_one_loader_keeps_the_plain_names(loaders):
    trainer, module = fit(loaders())
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(by_hand(module, 1)[0])
    assert set(trainer.callback_metrics) == {"val/loss", "val/accuracy", "hp/accuracy"}


def test_further_loaders_change_neither_training_nor_checkpoints():
    one, several = (
        fit(loaders)[1] for loaders in (data(1), {"id": data(1), "ood": data(2), "far": data(3)})
    )
    assert one.state_dict().keys() == several.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, several.state_dict()[name])


class Joined(Classification):
    """Batches of two loaders at once."""

    def _first(self, batch):
        return batch["id"] if isinstance(batch, dict) else batch

    def inputs(self, batch):
        return super().inputs(self._first(batch))

    def loss(self, output, batch):
        return super().loss(output, self._first(batch))

    def target(self, batch):
        return super().target(self._first(batch))


def test_joined_batches_are_of_one_loader():
    both = CombinedLoader({"id": data(1), "ood": data(2)}, "max_size")
    trainer, _ = fit(both, rule=BP(mlp(), Joined(5)))
    assert {"val/loss", "val/accuracy"} <= set(trainer.callback_metrics)
    assert not [name for name in trainer.callback_metrics if "ood" in name]


@pytest.mark.parametrize("sanity", [0, -1])
@pytest.mark.parametrize("monitor", ["val/loss/ood", "hp/accuracy/ood", "val/loss"])
def test_metrics_of_loaders_may_be_watched(monitor, sanity, tmp_path):
    saved = ModelCheckpoint(tmp_path, monitor=monitor)
    rule = BP(
        mlp(),
        Classification(5),
        lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor=monitor),
    )
    loaders = {"id": data(1), "ood": data(2)}
    stop = EarlyStopping(monitor, patience=9)
    trainer, _ = fit(
        loaders, stop, saved, rule=rule, enable_checkpointing=True, num_sanity_val_steps=sanity
    )
    assert trainer.global_step == 12
    assert saved.best_model_path


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("monitor", ["val/loss/odd", "val/accuracy/id", "val/acc/ood"])
def test_loaders_that_are_not_there_are_named_before_the_first_step(monitor, sanity):
    rule = BP(mlp(), Classification(5))
    loaders = {"id": data(1), "ood": data(2)}
    with pytest.raises(
        MisconfigurationException, match=f"watches '{monitor}'.*one of: .*val/"
    ) as e:
        fit(loaders, EarlyStopping(monitor), rule=rule, num_sanity_val_steps=sanity)
    assert rule.trainer.global_step == 0
    if monitor != "val/acc/ood":  # known to be wrong before the loaders are
        assert "val/accuracy/ood" in str(e.value)


def test_a_loader_may_not_have_the_name_of_a_metric():
    class Odd(Classification):
        def metrics(self):
            found = super().metrics()
            return found | {"accuracy/ood": super().metrics()["accuracy"]}

    with pytest.raises(ValueError, match=r"loader 'ood' .* name a metric 'val/accuracy/ood'"):
        fit({"id": data(1), "ood": data(2)}, rule=BP(mlp(), Odd(5)))


def test_histories_hparams_and_compare_know_the_loaders(tmp_path):
    loaders = {"id": data(1), "ood": data(2)}
    for seed in (1, 2):
        board = TensorBoardLogger(tmp_path, name="", version=f"s{seed}", default_hp_metric=False)
        rule = seeded(lambda: DFA(mlp(), Classification(5)), seed)
        start = by_hand(rule, 2)
        fit(loaders, MetricHistory(), rule=rule, logger=board, log_every_n_steps=1)
        folder = tmp_path / f"s{seed}"
        assert "rule: DFA" in (folder / "hparams.yaml").read_text()
        config = f"seed_everything: {seed}\nmodel: {{class_path: DFA}}\ndata: {{class_path: D}}\n"
        (folder / "config.yaml").write_text(config + "trainer: {max_epochs: 2}\n")
    events = EventAccumulator(str(folder)).Reload()
    assert {"val/accuracy/ood", "val/loss/ood", "hp/accuracy/ood"} <= set(events.Tags()["scalars"])
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    assert b"hp/accuracy/ood" in content
    rows = [row["values"] for row in read_history(folder / "metrics.jsonl")]
    assert [set(row) for row in rows] == [
        {f"val/{name}{end}" for name in ("loss", "accuracy") for end in ("", "/ood")}
    ] * 3
    assert rows[0]["val/loss/ood"] == pytest.approx(start[0], rel=1e-5)
    assert rows[0]["val/accuracy/ood"] == pytest.approx(start[1])
    text = str(compare([tmp_path], tmp_path / "out"))
    head, line = text.splitlines()[:2]
    assert "accuracy ood" in head
    assert "loss ood" in head
    assert f"{rows[-1]['val/accuracy/ood']:.3f} ±" in line
    table = (tmp_path / "out" / "comparison.csv").read_text().splitlines()
    values = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    assert float(values["accuracy/ood"]) == pytest.approx(rows[-1]["val/accuracy/ood"])
    assert not math.isnan(float(values["loss/ood_sd"]))


def test_a_run_with_several_loaders_resumes_to_the_bit(tmp_path):
    def rule():
        return seeded(lambda: DFA(mlp(), Classification(5)))

    def loaders():
        return {"id": data(1), "ood": data(2)}

    whole, expected = fit(loaders(), rule=rule(), max_epochs=4)
    half, _ = fit(loaders(), rule=rule(), max_epochs=2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = quiet_trainer(max_epochs=4, num_sanity_val_steps=-1)
    module = rule()
    resumed.fit(module, datamodule=Data(loaders()), ckpt_path=tmp_path / "half.ckpt")
    for name, value in expected.state_dict().items():
        assert torch.equal(value, module.state_dict()[name])
    assert resumed.callback_metrics.keys() == whole.callback_metrics.keys()
    for name, value in whole.callback_metrics.items():
        assert torch.equal(value, resumed.callback_metrics[name])

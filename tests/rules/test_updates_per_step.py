"""Several updates in a training step are the same updates made one a step."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset, default_collate

from lit_credit.callbacks import ResidualNorms
from lit_credit.datamodules import Digits, TensorLoader
from lit_credit.inspect.updates import Updates, batches_of
from lit_credit.models import ResidualMLP
from lit_credit.rules import BP, DFA, FA
from lit_credit.tasks import Classification
from tests.support import images, quiet_trainer, seeded


class Dropping(ResidualMLP):
    """Uses the global random state at every update."""

    def forward(self, x):
        return super().forward(torch.nn.functional.dropout(x, 0.1, self.training))


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)


def make(kind, updates, **kwargs):
    def rule():
        net = Dropping(64, width=12, depth=2)
        kwargs.setdefault("lr_scheduler", cosine)
        return kind(net, Classification(), lr_interval="step", updates_per_step=updates, **kwargs)

    return seeded(rule)


def fit(rule, data=None, ckpt_path=None, **trainer):
    t = quiet_trainer(**({"max_epochs": 2} | trainer))
    t.fit(rule, datamodule=data or Digits(batch_size=200, seed=0, val_split=0), ckpt_path=ckpt_path)
    return t


def assert_same_weights(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BP, {"clip_norm": 0.5}),
        (FA, {"feedback_sign": "weight", "redraw": True}),
        (DFA, {"normalize_credit": True}),
    ],
)
def test_weights_are_those_of_one_update_a_step(kind, options):
    one, many = (fit(make(kind, updates, **options)) for updates in (1, 3))
    assert_same_weights(one.lightning_module, many.lightning_module)
    assert one.global_step == many.global_step == 16  # 3, 3 and 2 an epoch
    assert many.num_training_batches == 3


def test_of_other_data_the_rows_are_split():
    x, y = images(n=96, features=64)
    rules = []
    for updates in (1, 4):
        rules.append(make(BP, updates))
        loader = TensorLoader([x, y], batch_size=8 * updates, seed=0)
        quiet_trainer(max_epochs=2).fit(rules[-1], loader)
    assert_same_weights(*rules)
    x, names = torch.arange(5), ["a"]
    parts = batches_of({"x": x, "scale": torch.ones(()), "names": names}, 3)
    assert [part["x"].tolist() for part in parts] == [[0], [1, 2], [3, 4]]
    assert all(part["scale"] == 1 and part["names"] == names for part in parts)
    assert len(batches_of((x[:2],), 4)) == 2


def test_what_is_logged_has_the_same_axis(tmp_path):
    columns = []
    for updates in (1, 4):
        logger = CSVLogger(tmp_path, name="", version=str(updates))
        fit(
            make(BP, updates),
            logger=logger,
            log_every_n_steps=4,
            callbacks=[LearningRateMonitor(logging_interval="step"), ResidualNorms(figure=False)],
            default_root_dir=tmp_path,
        )
        with open(f"{logger.log_dir}/metrics.csv") as file:
            rows = list(csv.DictReader(file))
        names = ["train/loss", "val/loss", "residual/norm/L01"]
        columns.append([(r["step"], n, r[n]) for n in names for r in rows if r[n]])
    assert columns[0] == columns[1]
    assert [step for step, name, _ in columns[0] if name == "train/loss"] == ["3", "7", "11", "15"]


def test_a_run_ends_at_max_steps_within_a_training_step():
    one, many = (fit(make(BP, updates), max_epochs=-1, max_steps=6) for updates in (1, 4))
    assert one.global_step == many.global_step == 6
    assert_same_weights(one.lightning_module, many.lightning_module)


def test_a_run_resumes_in_mid_epoch(tmp_path):
    data = {"batch_size": 100, "seed": 0, "val_split": 0}  # 15 batches an epoch: 4, 4, 4 and 3
    whole = make(DFA, 4)
    fit(whole, Digits(**data))
    saved = ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, every_n_train_steps=4)
    callbacks = {"callbacks": [saved], "enable_checkpointing": True}
    fit(make(DFA, 4), Digits(**data), max_epochs=-1, max_steps=8, **callbacks)
    resumed = make(DFA, 4)
    path = tmp_path / "epoch=0-step=8.ckpt"
    t = fit(resumed, Digits(**data), ckpt_path=path)
    assert t.global_step == 30
    assert_same_weights(whole, resumed)


def test_a_loader_hands_out_the_same_batches_together():
    x = torch.arange(23)
    plain, joined = (TensorLoader([x], batch_size=4, updates=updates) for updates in (1, 4))
    groups = list(joined)
    assert [len(group) for group in groups] == [4, 2] == [len(g) for g in list(joined)]
    assert all(isinstance(group, Updates) for group in groups)
    assert len(joined) == 2
    for (one,), (other,) in zip(plain, [batch for group in groups for batch in group], strict=True):
        assert torch.equal(one, other)
    joined.load_state_dict({"epoch": 0, "batch": 4})
    (rest,) = joined
    assert torch.equal(torch.cat([b for (b,) in rest]), torch.cat([b for (b,) in groups[1]]))
    assert joined.state_dict() == {"epoch": 0, "batch": 6}


def test_a_probe_of_training_data_has_the_batches_of_updates(tmp_path):
    x, y = images(n=96, features=64)
    norms = ResidualNorms(n_samples=50, figure=False)
    trainer = quiet_trainer(max_epochs=1, callbacks=[norms], default_root_dir=tmp_path)
    trainer.fit(make(BP, 2), TensorLoader([x, y], batch_size=16, updates=2))
    assert norms.probe.rows == [16, 16, 16, 2]


class Weighted(Classification):
    """With weights of classes in the batch."""

    def loss(self, output, batch):
        return torch.nn.functional.cross_entropy(output, batch[1], batch[2])


def test_rows_that_are_not_known_are_not_split():
    x, y = images(n=96, features=64)
    loader = DataLoader(TensorDataset(x, y), 16, collate_fn=weighted)
    quiet_trainer(max_epochs=1).fit(BP(ResidualMLP(64), Weighted()), loader)
    rule = BP(ResidualMLP(64), Weighted(), updates_per_step=2)
    with pytest.raises(ValueError, match=r"`updates_per_step` is 2.*begin with \[10, 16\].*at 1"):
        quiet_trainer(max_epochs=1).fit(rule, loader)


def weighted(rows):
    return *default_collate(rows), torch.ones(10)


@pytest.mark.parametrize(
    "call", [lambda n: make(BP, n), lambda n: TensorLoader([torch.ones(3)], 1, updates=n)]
)
def test_a_number_below_one_is_refused(call):
    with pytest.raises(ValueError, match=r"`updates(_per_step)?` ?(is |=)0.*at least 1"):
        call(0)

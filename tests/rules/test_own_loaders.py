"""Loaders of one's own, as docs/howto/stream.md has them: every rule trains and resumes."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lit_credit import rules
from lit_credit.models import MLP, EnergyMLP
from lit_credit.tasks import Classification
from tests.support import quiet_trainer, seeded

PAGE = Path("docs/howto/stream.md").read_text()
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")
RULES = [
    *("BP", "FA", "KolenPollack", "WeightMirror", "BlockFA", "DFA", "DirectKolenPollack", "FDFA"),
    *("LocalLosses", "PEPITA", "PredictiveCoding", "ForwardGradient", "TargetPropagation"),
    *("ForwardForward", "EquilibriumPropagation", "FrozenUnits"),
]
BATCHES, EPOCHS = 5, 2


def test_the_list_of_rules_is_whole():
    abstract = {"CreditRule", "LocalRule", "InferenceRule"}
    kinds = [getattr(rules, name) for name in rules.__all__]
    named = {k.__name__ for k in kinds if isinstance(k, type) and issubclass(k, rules.CreditRule)}
    assert named - abstract == set(RULES)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    for i in range(6):
        x = rng.standard_normal((16, 20)).astype(np.float32)
        np.savez(folder / f"{i}.npz", x=x, y=x[:, :5].argmax(1))
    return folder


def load(kind, shards):
    """Loaders for training and for validation."""
    names = {}
    for text in FILES.values():
        exec(text, names)
    data = names["Stream"](str(shards), batch_size=16)
    train = data.train_dataloader()
    if kind == "loader":
        rows = [
            torch.stack([torch.as_tensor(v) for v in part])
            for part in zip(*train.dataset, strict=True)
        ]
        train = DataLoader(TensorDataset(*rows), 16, shuffle=True)
    elif kind == "resumable":
        train = names["Resumable"](train, BATCHES)
    return train, data.val_dataloader()


def build(name):
    def make():
        if name == "EquilibriumPropagation":
            return rules.EquilibriumPropagation(EnergyMLP(20, [8], 5), Classification(5))
        net = MLP(20, [8, 8], 5, activation="tanh")
        return getattr(rules, name)(net, Classification(5))

    return seeded(make)


def fit(name, kind, shards, folder, **kwargs):
    shared = {"save_top_k": -1, "auto_insert_metric_name": False}
    checkpoints = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=7, **shared)
    ends = ModelCheckpoint(folder, filename="end{epoch}", **shared)
    options = {"callbacks": [checkpoints, ends], "enable_checkpointing": True, "max_epochs": EPOCHS}
    torch.manual_seed(0)
    module, trainer = build(name), quiet_trainer(default_root_dir=folder, **options)
    trainer.fit(module, *load(kind, shards), **kwargs)
    return module.state_dict(), trainer.global_step


def is_same(one, other):
    return all(torch.equal(v, other[n]) for n, v in one.items() if isinstance(v, torch.Tensor))


@pytest.mark.few(6)
@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "stream") for name in RULES), ("BP", "loader"), ("DFA", "loader")]
)
def test_every_rule_resumes_at_the_end_of_an_epoch_to_the_bit(name, kind, shards, tmp_path):
    whole, steps = fit(name, kind, shards, tmp_path)
    assert steps == EPOCHS * BATCHES
    again = fit(name, kind, shards, tmp_path / "again", ckpt_path=tmp_path / "end0.ckpt")
    assert again[1] == steps
    assert is_same(whole, again[0])


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize(
    ("kind", "steps", "same"),
    [
        ("loader", EPOCHS * BATCHES, False),
        ("stream", EPOCHS * BATCHES + 2, False),
        ("resumable", EPOCHS * BATCHES, True),
    ],
)
def test_what_follows_a_checkpoint_in_mid_epoch(kind, steps, same, shards, tmp_path):
    """As the table of the page says it; 7 steps are two of the second epoch."""
    whole, _ = fit("DFA", kind, shards, tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        again = fit("DFA", kind, shards, tmp_path / "again", ckpt_path=tmp_path / "7.ckpt")
    over = "after 2 batches, and the training data have no length. They start over"
    assert any(over in str(one.message) for one in told) == (kind == "stream")
    assert again[1] == steps
    assert is_same(whole, again[0]) == same

"""A small run of three epochs that can be broken off and resumed."""

import json

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_credit.callbacks import CreditAlignment, MetricHistory, ResidualNorms
from lit_credit.models import ResidualMLP
from lit_credit.rules import DFA
from lit_credit.runs.checkpoint_io import AtomicCheckpointIO
from lit_credit.runs.history import read_history
from lit_credit.tasks import Classification
from tests.support import loader, quiet_trainer, seeded

STEPS = 6
"""Of an epoch."""
HISTORIES = ("metrics", "residual_norms", "credit_alignment")


def mlp(kind=ResidualMLP, **kwargs):
    return kind(20, **({"width": 8, "num_classes": 5, "depth": 2} | kwargs))


def rule(kind=DFA, net=mlp, **kwargs):
    return seeded(lambda: kind(net(), Classification(5), **kwargs))


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


def fit(module, folder, *, before=(), after=(), ckpt_path=None, **kwargs):
    """Fit with faulty callbacks before and after ours; returns ours."""
    ours = [MetricHistory(), ResidualNorms(every_n_steps=2), CreditAlignment(figure=False)]
    ours[1].figure = False
    checkpoint = ModelCheckpoint(
        folder / "checkpoints",
        filename="last",
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    options = {
        "callbacks": [*before, *ours, *after, checkpoint],
        "default_root_dir": folder,
        "enable_checkpointing": True,
        "max_epochs": 3,
        "num_sanity_val_steps": -1,
        "plugins": [AtomicCheckpointIO()],
    }
    trainer = quiet_trainer(**(options | kwargs))
    trainer.fit(module, loader(), loader(n=32), ckpt_path=ckpt_path)
    return ours


def histories(folder):
    """The text of each history."""
    rows = {name: read_history(folder / f"{name}.jsonl") for name in HISTORIES}
    return {name: json.dumps(found) for name, found in rows.items()}


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name

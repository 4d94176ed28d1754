"""Checkpoints hold no data of a probe: nothing in them grows with ``n_samples``."""

import io
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from lightning.pytorch import Callback

import lit_credit.callbacks
from lit_credit.callbacks import (
    FiniteGuard,
    MemberCheckpoints,
    PartFreezing,
    SpacedCheckpoints,
    StagedTraining,
    TextSamples,
)
from lit_credit.datamodules import TensorLoader
from lit_credit.rules import FA
from lit_credit.studies import __path__ as studies_path
from lit_credit.utils.nested import tensors_of
from tests import support
from tests.callbacks.test_contract import CALLBACKS, SCHEDULED, counted, make, net_for, takes

NETS = sorted({net_for(kind) for kind in CALLBACKS}, key=lambda net: net.__name__)
FEW, MANY = 10, 90


def checkpoint_of(kinds, net, n_samples):
    """What a run with these diagnostics would save."""
    made = []
    for kind in kinds:
        chunks = {"chunk_size": MANY} if takes(kind, "chunk_size") else {}
        made.append(make(kind, **counted(kind, n_samples), **chunks))
    loaders = [TensorLoader(support.tensors(MANY), batch_size=size) for size in (8, MANY)]
    run = support.fit(
        None,
        support.rule(FA, net),
        *made,
        FiniteGuard(),
        loaders=loaders,
        logger=False,
        max_steps=1,
    )
    buffer = io.BytesIO()
    torch.save(run._checkpoint_connector.dump_checkpoint(False), buffer)
    size = buffer.tell()
    buffer.seek(0)
    return size, torch.load(buffer, weights_only=True)


@pytest.mark.few(1)
@pytest.mark.parametrize("net", NETS)
def test_checkpoints_hold_no_data_and_no_tensor_twice(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = [kind for kind in CALLBACKS if net_for(kind) is net]
    (few, found), (many, _) = (checkpoint_of(kinds, net, n) for n in (FEW, MANY))
    row = 4 * support.FEATURES
    # Of the 80 more rows that the second run measures on; a file is padded to 64 bytes.
    assert abs(many - few) < 10 * row
    known = {"state_dict", "optimizer_states", "random_state"}
    for name, entry in found.items():
        assert name in known or not list(tensors_of(entry)), name
    assert sum(any(kind.__name__ in key for key in found["callbacks"]) for kind in kinds) == len(
        kinds
    )


def test_every_other_callback_keeps_no_tensors_in_checkpoints():
    studies = [import_module(m.name) for m in iter_modules(studies_path, "lit_credit.studies.")]
    rooms = [lit_credit.callbacks, *studies]
    exported = {getattr(room, name) for room in rooms for name in room.__all__}
    callbacks = {c for c in exported if isinstance(c, type) and issubclass(c, Callback)}
    keep = {
        c
        for c in callbacks
        if c.state_dict is not Callback.state_dict
        or c.on_save_checkpoint is not Callback.on_save_checkpoint
    }
    others = {MemberCheckpoints, PartFreezing, SpacedCheckpoints, StagedTraining, TextSamples}
    assert keep & others == {PartFreezing, StagedTraining}  # the names of frozen parameters
    assert {c for c in callbacks if not getattr(c, "__abstractmethods__", None)} == {
        *CALLBACKS,
        *others,
        FiniteGuard,
    }
    assert set(SCHEDULED) <= keep

"""Errors about nets of a thousand modules with long names fit on a screen."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_credit import callbacks
from lit_credit.inspect.unit_names import expand_units
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.studies import ngram
from lit_credit.tasks import Classification
from lit_credit.utils.names import match_names, submodule_names
from lit_credit.utils.short_text import choice
from tests.support import loader, quiet_trainer

MOST = 1500


class OddLayer(nn.Module):
    """A weight that has no feedback, in a layer with a long name."""

    def __init__(self):
        super().__init__()
        self.a_weight_of_its_own_that_is_nothing_known = nn.Parameter(torch.eye(2))
        self.an_attention_of_a_kind_that_nobody_knows_yet = nn.Identity()

    def forward(self, x):
        return x @ self.a_weight_of_its_own_that_is_nothing_known


class Deep(nn.Module):
    """A thousand modules."""

    credit_units = None

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(20, 2)
        self.the_long_tower_of_self_attention_layers = nn.ModuleList(OddLayer() for _ in range(500))
        self.head = nn.Linear(2, 5)

    def forward(self, x):
        x = self.embed(x)
        for layer in self.the_long_tower_of_self_attention_layers[:3]:
            x = layer(x)
        return self.head(x)


del Deep.credit_units
TOWER = "the_long_tower_of_self_attention_layers"


def fit(module, *diagnostics):
    trainer = quiet_trainer(max_epochs=1, callbacks=list(diagnostics), limit_train_batches=1)
    trainer.fit(module, loader(), loader(n=16))


def rule(kind=BP, **kwargs):
    return kind(Deep(), Classification(5), **kwargs)


DIAGNOSTICS = [
    callbacks.EmbeddingGeometry,
    callbacks.AttentionMaps,
    callbacks.CircuitMatching,
    callbacks.CreditAlignment,
    callbacks.GradientNorms,
    callbacks.HeadAttribution,
    callbacks.HeadBehaviour,
    callbacks.LayerProbes,
    ngram.LogProbTheory,
    callbacks.ReferenceValidity,
    callbacks.Representations,
    callbacks.ResidualNorms,
    callbacks.ScaleStability,
    callbacks.SoftmaxJacobian,
    callbacks.SubspaceDistance,
    callbacks.WeightAlignment,
]


@pytest.mark.parametrize(
    "make",
    [
        lambda: rule(units=["nothing"]),
        lambda: rule(units=["an_attention_of_a_kind_that_nobody_knows_yet"]),
        lambda: rule(readout=["nothing"]),
        lambda: rule(DFA),
        lambda: rule(DFA, units=["embed"], readout=["head"]),
        lambda: rule(DFA, units=["embed", f"{TOWER}.*"], readout=[f"{TOWER}.*"]),
        lambda: rule(DFA, units=[f"{TOWER}.*+embed*"], readout=["head"]),
        lambda: rule(FA, leave_exact=["nothing"]),
        lambda: rule(clip_per_unit={"nothing": 1.0}, units=[f"{TOWER}.*"]),
        lambda: rule(DFA, units=[f"{TOWER}.*"], readout=["head"], shared_feedback={"no": "one"}),
        lambda: fit(rule(BlockFA, units=[f"{TOWER}.*", "embed"], readout=["head"])),
        lambda: expand_units([f"{TOWER}.*+head*"], submodule_names(Deep()), "units"),
        lambda: fit(rule(), callbacks.FiniteGuard(units=["nothing"])),
        lambda: fit(rule(), callbacks.PartFreezing(["nothing"])),
        *(lambda kind=kind: fit(rule(), kind()) for kind in DIAGNOSTICS[1:]),
        *(lambda kind=kind: fit(rule(), kind(units=["nothing"])) for kind in DIAGNOSTICS[:-1]),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_error_is_at_most_a_screen(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, MisconfigurationException)) as error:
        make()
    assert len(str(error.value)) <= MOST


def test_a_choice_of_long_names_is_short():
    names = [f"{'x' * 150}.{i}" for i in range(1000)]
    text = choice(names, f"{'x' * 150}.7")
    assert len(text) < 900
    assert text.startswith(names[7])
    assert text.endswith(" more")
    assert len(choice(["y" * 5000])) < 900
    with pytest.raises(ValueError, match="996 more") as error:
        match_names(["a"], names, "units")
    assert len(str(error.value)) < MOST

"""What ``diagnose`` refuses, with an error that names the argument and the remedy."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import TensorDataset

from lit_credit.callbacks import (
    CreditAlignment,
    EmbeddingGeometry,
    GradientNorms,
    MetricHistory,
    ReferenceValidity,
    ResidualNorms,
)
from lit_credit.diagnosis import diagnose
from tests import support
from tests.support import NoisyNet

BATCH = support.tensors(6)
NORMS = ResidualNorms(n_samples=6, units=["blocks.*"])

DIAGNOSTICS = {
    "none": ([], ValueError, "`diagnostics` is empty"),
    "a class": ([ResidualNorms], TypeError, r"has ResidualNorms.*an instance: ResidualNorms\(\)"),
    "no diagnostic": ([MetricHistory()], TypeError, "has MetricHistory.*Leave it out"),
    "a name": (["ResidualNorms"], TypeError, "has str"),
    "one name": ("ResidualNorms", TypeError, "has str"),
    "one class": (ResidualNorms, TypeError, r"ResidualNorms\(\)"),
    "nothing": (None, TypeError, "`diagnostics` has NoneType"),
}


@pytest.mark.parametrize("case", DIAGNOSTICS.values(), ids=DIAGNOSTICS)
def test_wrong_diagnostics(case):
    given, error, text = case
    with pytest.raises(error, match=text):
        diagnose(NoisyNet(), given, BATCH)


DATA = {
    "an iterator": (iter([BATCH]), TypeError, r"`data` is list_iterator.*next\(iterator\)"),
    "a dataset": (TensorDataset(*BATCH), ValueError, r"TensorDataset.*DataLoader\(data"),
    "text": ("digits", TypeError, "`data` is str"),
    "no batches": ([], ValueError, "`data` is an empty list"),
    "none": (None, MisconfigurationException, "ResidualNorms.*no data.*Give `data`"),
}


@pytest.mark.parametrize("case", DATA.values(), ids=DATA)
def test_wrong_data(case):
    given, error, text = case
    with pytest.raises(error, match=text):
        diagnose(NoisyNet(), NORMS, given)


def test_one_error_names_all_that_lack_a_loss():
    given = [
        kind(n_samples=6, units=["blocks.*"])
        for kind in (ResidualNorms, GradientNorms, ReferenceValidity)
    ]
    with pytest.raises(MisconfigurationException, match="GradientNorms, ReferenceValidity") as told:
        diagnose(NoisyNet(), given, BATCH)
    assert "ResidualNorms" not in str(told.value)


def test_a_diagnostic_of_weights_needs_no_data():
    found = diagnose(support.SymbolNet(), EmbeddingGeometry())
    assert found["embedding_geometry"].values


def test_a_rule_is_asked_for_its_credit_only_if_it_is_one():
    with pytest.raises(MisconfigurationException, match="CreditAlignment"):
        diagnose(NoisyNet(), CreditAlignment(n_samples=6, parameters=False), BATCH)


@pytest.mark.parametrize(
    ("model", "text"), [("gpt2", "`model` is str"), (NoisyNet, "`model` is type")]
)
def test_a_model_that_is_no_module(model, text):
    with pytest.raises(TypeError, match=text):
        diagnose(model, NORMS, BATCH)


def test_checkpoints_that_do_not_fit_are_not_loaded_halfway(tmp_path):
    net = NoisyNet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    other = {name: value + 1.0 for name, value in net.state_dict().items()}
    other["head.weight"] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"head\.weight \(3, 3\) there, \(4, 8\) here"):
        diagnose(net, NORMS, BATCH, checkpoints=[(1, other)])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_out_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file.*Give another `out`"):
        diagnose(NoisyNet(), NORMS, BATCH, out=tmp_path / "file")


def test_an_iterator_over_nothing_is_told():
    with pytest.raises(ValueError, match="`checkpoints` is empty"):
        diagnose(NoisyNet(), NORMS, BATCH, checkpoints=iter([]))

"""Batches that are not there, of one sample, of the wrong sizes; and bugs, which are left alone."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.rules import BP, DFA
from lit_credit.rules.first_batch import explain
from lit_credit.tasks import Classification, Supervised
from tests.support import images, loader, quiet_trainer, seeded
from tests.support.resumable import mlp


class Net(nn.Sequential):
    """With a BatchNorm."""

    credit_units = ("0",)
    readout = ("2",)

    def __init__(self):
        super().__init__(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))


class Buggy(Net):
    """Has a bug that shows at the n-th call."""

    error = RuntimeError
    calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.fails_at:
            raise self.error("a bug")
        return super().forward(x)


def batches(n, batch_size, **kwargs):
    return DataLoader(TensorDataset(*images(n)), batch_size=batch_size, **kwargs)


def fit(net, train, kind=BP, **kwargs):
    module = seeded(lambda: kind(net, Classification(5)))
    trainer = quiet_trainer(**({"max_epochs": 1} | kwargs))
    trainer.fit(module, train)
    return trainer


# No batches


@pytest.mark.filterwarnings("ignore:Total length of")
@pytest.mark.parametrize("train", [batches(0, 4), batches(3, 4, drop_last=True)])
def test_training_on_nothing_is_an_error(train):
    with pytest.raises(MisconfigurationException, match=r"no training batch.*`drop_last`"):
        fit(mlp(), train)


def test_training_on_nothing_may_be_asked_for():
    assert fit(mlp(), loader(), limit_train_batches=0).global_step == 0
    assert fit(mlp(), loader(), max_epochs=0).global_step == 0


def test_our_loader_refuses_to_have_no_batch():
    from lit_credit.datamodules import TensorLoader

    with pytest.raises(ValueError, match="leaves no batch"):
        TensorLoader(images(3), batch_size=4, drop_last=True)


# Batches of one


@pytest.mark.parametrize("kind", [BP, DFA])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_batches_of_one_sample_train(kind, batch_size):
    assert fit(mlp(), loader(n=9, batch_size=batch_size), kind).global_step > 1


def test_batch_norm_on_a_last_batch_of_one_is_explained():
    says = r"one sample, \(float32 \(1, 20\), int64 .*BatchNorm of Net.*`batch_size`"
    with pytest.raises(ValueError, match=says):
        fit(Net(), loader(n=9, batch_size=8))


# Sizes that do not fit


@pytest.mark.parametrize("kind", [BP, DFA])
def test_the_first_batch_is_explained(kind):
    net = nn.Sequential(nn.Linear(21, 8), nn.Linear(8, 5))
    net.credit_units, net.readout = ("0",), ("1",)
    says = (
        r"pass through Sequential and Classification: mat1 .*The batch: \(float32 \(16, 20\), int"
    )
    with pytest.raises(ValueError, match=says) as raised:
        fit(net, loader(), kind)
    assert isinstance(raised.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("x", "y", "loss"),
    [
        (torch.float64, torch.float32, nn.MSELoss()),
        (torch.int64, torch.float32, nn.MSELoss()),
        (torch.float32, torch.int64, nn.BCEWithLogitsLoss()),
    ],
)
def test_types_of_numbers_get_their_remedy(x, y, loss):
    """NumPy's float64, whole numbers as inputs, and whole numbers under a loss of real ones."""
    rows = [(torch.ones(4).to(x), torch.ones(2).to(y)) for _ in range(4)]
    module = BP(nn.Sequential(nn.Linear(4, 2)), Supervised(loss))
    with pytest.raises(ValueError, match=r"\. The batch: .*`x.float\(\)` of torch"):
        quiet_trainer(max_epochs=1).fit(module, DataLoader(rows, 2))


@pytest.mark.parametrize("name", ["validate", "test"])
def test_so_it_is_in_evaluation(name):
    module = BP(nn.Sequential(nn.Linear(21, 5)), Classification(5))
    with pytest.raises(ValueError, match="the first batch does not pass through"):
        getattr(quiet_trainer(), name)(module, loader())


def test_a_dictionary_is_described():
    from lit_credit.rules.first_batch import explain

    batch = {"x": torch.zeros(2, 3), "ids": [torch.tensor([4, 7]), torch.zeros(0).long()], "n": "a"}
    says = r"\{x: float32 \(2, 3\), ids: \(int64 \(2,\) from 4 to 7, int64 \(0,\)\), n: str\}"
    with pytest.raises(ValueError, match=says):
        explain(IndexError("x"), batch, "Net", "Task", first=True)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        explain(torch.cuda.OutOfMemoryError("x"), batch, "Net", "Task", first=True)


@pytest.mark.parametrize("error", [RuntimeError, IndexError, AttributeError])
@pytest.mark.parametrize("call", [2, 5])
def test_a_bug_at_a_later_step_stays_what_it_is(error, call):
    net = Buggy()
    net.error, net.fails_at = error, call
    with pytest.raises(error, match="a bug") as raised:
        fit(net, loader())
    assert raised.traceback[-1].name == "forward"


@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError, ZeroDivisionError])
def test_a_bug_at_the_first_step_is_told_with_the_batch(error):
    """As of a net that takes, or returns, something else than the task thinks."""
    net = Buggy()
    net.error, net.fails_at = error, 1
    says = rf"pass through Buggy and Classification: {error.__name__}: .*a bug.*\(float32 \(16, 20"
    with pytest.raises(ValueError, match=says) as raised:
        fit(net, loader())
    assert type(raised.value.__cause__) is error


def test_what_is_no_bug_passes_through_the_first_step_as_it_is():
    class Pruned(Exception):
        """As a search for hyperparameters raises."""

    net = Buggy()
    net.error, net.fails_at = Pruned, 1
    with pytest.raises(Pruned):
        fit(net, loader())


def test_a_batch_on_a_device_that_computes_no_more_is_described_by_its_shape():
    """As a GPU that was given a class too large; here one that has no values at all."""
    lost = torch.zeros(3, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match=r"assert\. The batch: int64 \(3,\)\. .*TRACEBACK"):
        explain(RuntimeError("device-side assert"), lost, "Net", "Classification", first=True)

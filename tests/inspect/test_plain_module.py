"""Nets and batches as people have them, handed to one another."""

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy

from lit_credit.inspect.batch_arguments import batch_arguments
from lit_credit.inspect.plain_module import plain_module
from lit_credit.models import GPT

X = torch.arange(6.0).reshape(3, 2)
Y = torch.tensor([0, 1, 0])
IDS = torch.arange(12).reshape(3, 4)

Named = namedtuple("Named", "y x")


@dataclass
class Record:
    """A batch that a collate function of a project may return."""

    x: torch.Tensor
    y: torch.Tensor


class Net(nn.Module):
    """Its ``forward`` is one of the functions below, and notes what it is given."""

    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def one(x):
    """Takes one input."""


def two(x, y):
    """Requires both."""


def nano(idx, targets=None):
    """As in nanoGPT."""


def masked(x, mask=None):
    """Its second parameter does not take targets."""


def all_optional(input_ids=None, attention_mask=None, labels=None):
    """As models of Hugging Face."""


def named_only(*, x, y=None):
    """Takes nothing by position."""


def whole(batch):
    """Takes a batch apart by itself."""


def whole_and_more(batch, **flags):
    """Takes a batch, and flags by name."""


def stars(*inputs):
    """Takes any number."""


def any_name(x, **others):
    """Hands further entries on."""


def texts(sentences):
    """Tokenizes."""


PACKED = nn.utils.rnn.pack_padded_sequence(torch.zeros(3, 2, 1), [3, 2])


@pytest.mark.parametrize(
    ("forward", "batch", "expected"),
    [
        (one, X, ((X,), {})),
        (one, (X, Y), ((X,), {})),
        (one, [X, Y], ((X,), {})),
        (one, {"x": X, "y": Y}, ((), {"x": X})),
        (one, UserDict(x=X, y=Y), ((), {"x": X})),
        (one, {"image": X, "y": Y}, (({"image": X, "y": Y},), {})),
        (one, Record(X, Y), ((), {"x": X})),
        (one, Named(Y, X), ((), {"x": X})),
        (one, PACKED, ((PACKED,), {})),
        (one, {0: X}, (({0: X},), {})),
        (two, (X, Y, "name"), ((X, Y), {})),
        (two, {"y": Y, "x": X, "id": "a"}, ((), {"y": Y, "x": X})),
        (nano, (IDS, IDS), ((IDS, IDS), {})),
        (nano, IDS, ((IDS,), {})),
        (masked, (X, Y), ((X,), {})),
        (all_optional, (IDS, Y), ((IDS,), {})),
        (all_optional, {"input_ids": IDS, "id": 3}, ((), {"input_ids": IDS})),
        (all_optional, ({"input_ids": IDS}, Y), ((), {"input_ids": IDS})),
        (named_only, {"x": X, "id": 3}, ((), {"x": X})),
        (whole, {"x": X}, (({"x": X},), {})),
        (whole_and_more, {"x": X}, (({"x": X},), {})),
        (stars, (X, Y), ((X, Y), {})),
        (any_name, {"x": X, "mask": Y}, ((), {"x": X, "mask": Y})),
        (texts, ["a", "b"], ((["a", "b"],), {})),
        ({}.get, (X, Y), ((X,), {})),  # a function of C without a signature
    ],
)
def test_what_a_net_is_given(forward, batch, expected):
    args, kwargs = batch_arguments(Net(forward), batch)
    assert same(args, expected[0])
    assert list(kwargs) == list(expected[1])
    assert same(list(kwargs.values()), list(expected[1].values()))


def same(given, expected):
    """Whether these are the same objects; containers may be equal instead."""
    pairs = list(zip(given, expected, strict=True))
    return all(a is b or (not isinstance(a, torch.Tensor) and a == b) for a, b in pairs)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_wrappers_are_asked_for_the_net_inside():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    net = Wrapper(Wrapper(Net(one)))
    assert len(batch_arguments(net, (X, Y))[0]) == 1
    assert list(batch_arguments(net, {"x": X, "y": Y})[1]) == ["x"]
    assert len(batch_arguments(torch.jit.trace(nn.Linear(2, 2), X), (X, Y))[0]) == 1


# The loss


class Nano(nn.Module):
    """Returns logits, and a loss if it is given targets."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(12, 4)
        self.lm_head = nn.Linear(4, 12)

    def forward(self, idx, targets=None):
        logits = self.lm_head(self.wte(idx))
        if targets is None:
            return logits, logits.square().mean()  # such as a balancing loss
        return logits, cross_entropy(logits.flatten(0, 1), targets.flatten())


def test_a_net_s_own_loss_is_found_in_what_it_returns():
    net = Nano()
    expected = net(IDS, IDS)[1]
    assert plain_module(net).batch_loss((IDS, IDS)) == expected
    for output in (expected, {"loss": expected}, SimpleNamespace(loss=expected)):
        assert plain_module(Net(lambda x, found=output: found)).batch_loss(X) == expected
    given = plain_module(net, lambda model, batch: 2 * model(*batch)[1])
    assert given.batch_loss((IDS, IDS)) == 2 * expected


@pytest.mark.parametrize(
    ("net", "loss", "batch", "message"),
    [
        (Nano(), None, IDS, r"the output of Nano has no `loss`: it is \(float32 \(3, 4, 12\)"),
        (nn.Linear(2, 2), None, (X, Y), r"it is float32 \(3, 2\), for .* Give `loss`, a function"),
        (nn.Linear(2, 2), lambda m, b: m(b), X, r"given `loss` returns float32 \(3, 2\)"),
        (Net(lambda x: {"loss": x}), None, X, r"`loss` in the output of Net has shape \(3, 2\)"),
        (Net(two), None, X, r"the batch as it is: missing .* 'y'.*is forward\(x, y\)"),
        (Net(named_only), None, (X, Y), r"1 of the 2 items .* too many positional"),
    ],
)
def test_what_is_missing_is_named(net, loss, batch, message):
    with pytest.raises(MisconfigurationException, match=message):
        plain_module(net, loss).batch_loss(batch)


# Names and places


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_wrappers_that_compute_the_same_are_taken_off():
    net = Nano()
    for wrapped in (nn.DataParallel(net), torch.compile(net), torch.compile(nn.DataParallel(net))):
        module = plain_module(wrapped)
        assert (type(module).__name__, module.net) == ("Nano", net)
    assert type(plain_module(torch.jit.script(nn.Linear(2, 2)))).__name__ == "Linear"


def test_what_the_net_declares_is_declared():
    net = GPT(vocab_size=5, block_size=4, width=8, depth=2, heads=1)
    module = plain_module(net)
    assert module.credit_units == [f"net.{name}" for name in net.credit_units]
    assert module.residual_stream == [f"net.{name}" for name in net.residual_stream]
    assert plain_module(Nano()).credit_units == []
    assert plain_module(Nano()).residual_stream is None


def test_a_net_has_values_on_a_device():
    assert plain_module(nn.Identity()).device == torch.device("cpu")
    partly = nn.Sequential(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2))
    assert plain_module(partly).device == torch.device("cpu")
    with pytest.raises(MisconfigurationException, match=r"Linear is on the device 'meta'"):
        plain_module(nn.Linear(2, 2, device="meta"))
    with pytest.raises(TypeError, match=r"the model is function, expected an nn\.Module"):
        plain_module(one)


def test_the_net_is_not_touched():
    net = Nano().eval()
    net.wte.train()
    module = plain_module(net)
    assert (module.training, net.training, net.wte.training) == (False, False, True)

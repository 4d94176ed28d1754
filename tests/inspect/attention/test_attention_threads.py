"""Torch's functions of attention while other threads, and other libraries, use them."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.inspect.attention.recording import recorded_attention

ORIGINAL = [F.scaled_dot_product_attention, torch.softmax, torch.backends.mha.get_fastpath_enabled]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 4)

    def forward(self, x):
        x = self.project(x)
        x = F.scaled_dot_product_attention(x, x, x)
        return (x @ x.mT).softmax(-1) @ x


def current():
    return [F.scaled_dot_product_attention, torch.softmax, torch.backends.mha.get_fastpath_enabled]


def are_originals():
    return all(a is b for a, b in zip(current(), ORIGINAL, strict=True)) and (
        "softmax" not in vars(torch.Tensor)
    )


@pytest.fixture
def elsewhere():
    """Runs a function in another thread, and waits for it."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda function, *args: pool.submit(function, *args).result()


@pytest.mark.parametrize("same", [True, False], ids=["the same net", "another net"])
def test_attention_of_another_thread_is_not_recorded_and_stays_as_it_is(same, elsewhere):
    torch.manual_seed(0)
    net, x = Attention(), torch.randn(2, 3, 4)
    other = net if same else Attention()
    expected = other(x)
    found = []

    class Waiting(nn.Module):
        """While it runs, the other thread attends."""

        def __init__(self):
            super().__init__()
            self.attention = net

        def forward(self, x):
            found.append(elsewhere(other, x))
            return self.attention(x)

    module = Waiting()
    with recorded_attention(module) as calls:
        module(x)
    assert [call.module for call in calls] == ["attention", "attention"]
    torch.testing.assert_close(found[0], expected, rtol=0, atol=0)


def test_the_fused_path_of_an_encoder_stays_on_in_another_thread(elsewhere):
    with recorded_attention(nn.Identity()):
        assert not torch.backends.mha.get_fastpath_enabled()
        assert elsewhere(torch.backends.mha.get_fastpath_enabled)
    assert torch.backends.mha.get_fastpath_enabled()


def test_recorders_of_two_threads_overlap_and_each_sees_its_own(elsewhere):
    first, second, x = Attention(), Attention(), torch.randn(2, 3, 4)
    entered, leave = Event(), Event()

    def record():
        with recorded_attention(second) as calls:
            entered.set()
            assert leave.wait(60)
            second(x)
        return len(calls)

    with ThreadPoolExecutor(1) as pool:
        with recorded_attention(first) as calls:
            own = pool.submit(record)
            assert entered.wait(60)
            first(x)
        # The first is left before the second, which goes on.
        assert not are_originals()
        leave.set()
        assert own.result() == len(calls) == 2
    assert are_originals()


def test_a_patch_that_was_there_before_is_there_after(monkeypatch):
    def patched(self, *args, **kwargs):
        return torch._C.TensorBase.softmax(self, *args, **kwargs) * 2

    monkeypatch.setattr(torch.Tensor, "softmax", patched)
    net, x = Attention(), torch.randn(2, 3, 4)
    expected = net(x)
    with recorded_attention(net) as calls:
        torch.testing.assert_close(net(x), expected)
    assert vars(torch.Tensor)["softmax"] is patched
    assert calls[1].weights.detach().sum(-1).mean().item() == pytest.approx(2)


def test_a_patch_made_meanwhile_stays(monkeypatch):
    net, x = Attention(), torch.randn(2, 3, 4)
    expected = net(x)
    for name in ("scaled_dot_product_attention", "softmax"):
        monkeypatch.setattr(F, name, getattr(F, name))  # restored at the end
    monkeypatch.setattr(torch, "softmax", torch.softmax)
    with recorded_attention(net):
        kept = F.scaled_dot_product_attention

        def patched(*args, **kwargs):
            return kept(*args, **kwargs)

        F.scaled_dot_product_attention = torch.softmax = patched
        torch.Tensor.softmax = method = lambda self, dim: F.softmax(self, dim)
    assert F.scaled_dot_product_attention is torch.softmax is patched
    assert vars(torch.Tensor)["softmax"] is method
    del torch.Tensor.softmax
    torch.softmax = ORIGINAL[1]
    torch.testing.assert_close(net(x), expected)
    # What the other library kept was the twin: it puts it back, and the next `with` mends that.
    F.scaled_dot_product_attention = kept
    with recorded_attention(net) as calls:
        net(x)
    assert len(calls) == 2
    assert are_originals()

"""Feedback between feature maps against loops and autograd, and the sizes of matrices."""

import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from lit_credit.feedback import BlockFeedback, DirectFeedback
from lit_credit.feedback.maps import spread
from lit_credit.feedback.sizes import check_matrix_sizes
from lit_credit.rules import BP, BlockFA
from lit_credit.tasks import Classification
from tests.support import gradients, seeded


def windows(n, m):
    return [range(q * n // m, -(-(q + 1) * n // m)) for q in range(m)]


def loop(matrix, credit, positions):
    """One sample, one channel, one position of either map at a time."""
    n, _, high, wide = credit.shape
    result = torch.zeros(n, len(matrix), *positions, dtype=credit.dtype)
    for i, rows in enumerate(windows(positions[0], high)):
        for j, columns in enumerate(windows(positions[1], wide)):
            for y in rows:
                for x in columns:
                    share = credit[:, :, i, j] / (len(rows) * len(columns))
                    result[:, :, y, x] += share @ matrix.T
    return result


SIZES = [((6, 4), (3, 2)), ((5, 7), (3, 3)), ((4, 4), (4, 4)), ((2, 3), (4, 6)), ((6, 6), (1, 1))]


@pytest.mark.parametrize(("lower", "upper"), SIZES)
def test_maps_are_carried_by_channels_and_the_adjoint_of_average_pooling(lower, upper):
    feedback = BlockFeedback(["a", "b"])
    top = torch.randn(2, 5, *upper)
    shapes = {"a": torch.Size([2, 3, *lower]), "b": top.shape}
    credit = feedback(top, shapes).dense("a")
    assert feedback.unit_0.shape == (3, 5)
    torch.testing.assert_close(credit, loop(feedback.unit_0, top, lower))
    x = torch.zeros(2, 5, *lower, requires_grad=True)
    (pulled,) = torch.autograd.grad(adaptive_avg_pool2d(x, upper), x, top)
    torch.testing.assert_close(spread(top, lower), pulled)


def test_flat_credit_is_spread_and_the_credit_of_a_map_is_summed():
    feedback = BlockFeedback(["a", "b", "c"])
    top = torch.randn(2, 4)
    shapes = {"a": torch.Size([2, 6]), "b": torch.Size([2, 3, 2, 5]), "c": top.shape}
    credits = feedback(top, shapes)
    each = top @ feedback.unit_1.T / 10
    torch.testing.assert_close(credits.dense("b"), each[:, :, None, None].expand(2, 3, 2, 5))
    torch.testing.assert_close(credits.dense("a"), 10 * each @ feedback.unit_0.T)


def test_a_sequence_above_a_map_is_its_row_of_positions():
    feedback = BlockFeedback(["a", "b"])
    top = torch.randn(2, 6, 4)
    credit = feedback(top, {"a": torch.Size([2, 3, 2, 3]), "b": top.shape}).dense("a")
    for p in range(6):
        expected = top[:, p] @ feedback.unit_0.T
        torch.testing.assert_close(credit[:, :, p // 3, p % 3], expected)


def test_channels_may_stand_last():
    first, last = BlockFeedback(["a", "b"]), BlockFeedback(["a", "b"], maps="channels_last")
    top, lower = torch.randn(2, 5, 3, 2), torch.Size([2, 7, 6, 4])
    expected = first(top, {"a": lower, "b": top.shape}).dense("a").permute(0, 2, 3, 1)
    top = top.permute(0, 2, 3, 1)
    found = last(top, {"a": expected.shape, "b": top.shape}).dense("a")
    torch.testing.assert_close(found, expected)


class Linear(nn.Module):
    """1 x 1 convolutions and pooling, without nonlinearities."""

    credit_units = ("a", "b", "c")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 3, 1)
        self.b = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 4, 1))
        self.c = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.c(self.b(self.a(x))))


def test_with_the_weights_as_feedback_it_is_backpropagation():
    def make(kind):
        return kind(seeded(lambda: Linear().double()), Classification(5))

    batch = torch.randn(4, 2, 6, 6, dtype=torch.float64), torch.arange(4)
    rule = make(BlockFA)
    rule.credit(batch)
    rule.feedback.unit_0 = rule.net.b[1].weight.detach().flatten(1).T
    rule.feedback.unit_1 = rule.net.c[2].weight.detach().T
    found, exact = gradients(rule, batch), gradients(make(BP), batch)
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("saved", "own"), [("dense", "per_channel"), ("per_channel", "dense")])
def test_a_checkpoint_keeps_the_kind_of_its_matrices_and_says_so(saved, own):
    top = torch.randn(2, 5, 3, 2)
    shapes = {"a": torch.Size([2, 3, 6, 4]), "b": top.shape}
    before, after = BlockFeedback(["a", "b"], maps=saved), BlockFeedback(["a", "b"], maps=own)
    expected = before(top, shapes).dense("a")
    after.load_state_dict(before.state_dict())
    with pytest.warns(UserWarning, match=r"checkpoint's feedback matrices.*`feedback_maps`"):
        found = after(top, shapes).dense("a")
    assert torch.equal(found, expected)
    assert torch.equal(after(top, shapes).dense("a"), expected)  # without a second warning


@pytest.fixture
def nothing_is_drawn(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("drawn")

    for module in ("block_feedback", "stacked_matrices"):
        monkeypatch.setattr(f"lit_credit.feedback.{module}.draw_feedback", refuse)


def test_matrices_that_do_not_fit_are_refused_before_they_are_drawn(nothing_is_drawn):
    shapes = {"a": torch.Size([1, 64, 2240, 2240]), "b": torch.Size([1, 64, 1120, 1120])}
    top = torch.empty(shapes["b"], device="meta")
    message = r"matrices would take \d+\.\d+ GB, the largest, \(321126400, 80281600\), of unit 'a'"
    with pytest.raises(ValueError, match=message + ".*`feedback_maps: per_channel`"):
        BlockFeedback(["a", "b"], maps="dense")(top, shapes)
    error = torch.empty(1, 10**5, device="meta")
    with pytest.raises(ValueError, match=r"matrices would take .*'a'.*Set `error` to 'per_pos"):
        DirectFeedback(["a"])(error, {"a": shapes["a"]})


def test_large_matrices_are_warned_of_beside_the_net(monkeypatch):
    monkeypatch.setattr("lit_credit.feedback.sizes.available_memory", lambda: 10**12)
    sizes = {"small": (10, 10), "conv": (22_000, 100_000)}
    with pytest.warns(UserWarning, match=r"take 8.80 GB, 220 times the net's parameters; the larg"):
        check_matrix_sizes(sizes, "Do less.", parameters=10**7)
    check_matrix_sizes(sizes, "Do less.", parameters=10**9)
    with pytest.warns(UserWarning, match=r"take 8.80 GB; the largest, \(22000, 100000\), of unit"):
        check_matrix_sizes(sizes, "Do less.")
    check_matrix_sizes({"conv": (10_000, 12_000)}, "Do less.")

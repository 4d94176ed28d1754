"""What units, readout and shared matrices must be, and what becomes of odd ones."""

import pytest
import torch
from torch import nn

from lit_credit.feedback.block_feedback import BlockFeedback
from lit_credit.feedback.credits import rms_normalized
from lit_credit.feedback.direct_feedback import DirectFeedback
from lit_credit.models import MLP
from lit_credit.rules import DFA, BlockFA
from lit_credit.tasks import Classification
from tests.support import gradients, images, seeded

TASK = Classification(5)


def mlp():
    return MLP(in_features=20, hidden=[12, 12], num_classes=5)


def test_a_chain_of_units_out_of_order_is_refused_with_the_order():
    rule = BlockFA(mlp(), TASK, units=["layers.1", "layers.0"])
    with pytest.raises(ValueError, match=r"forward order: layers.0, layers.1"):
        rule.surrogate(images())


def test_an_empty_readout_is_refused():
    net = nn.Sequential(nn.Linear(20, 12), nn.Linear(12, 5))
    with pytest.raises(ValueError, match="`readout` is empty"):
        DFA(net, TASK, units=["0", "1"])


@pytest.mark.parametrize("shared", [{"layers.1": "layers.0"}, {"layers.0": "layers.1"}, False])
def test_the_matrix_beside_the_readout_is_that_of_the_last_unit(shared):
    rule = seeded(lambda: DFA(mlp(), TASK, shared_feedback=shared))
    batch = images()
    credit = rule.credit(batch)["net.layers.1"]
    (pair,) = rule.feedback_matrices().values()
    if pair.weight is not None:
        output = rule(batch[0]).detach().requires_grad_()
        (error,) = torch.autograd.grad(TASK.loss(output, batch), output)
        torch.testing.assert_close(error @ pair.feedback.T, credit)
    assert (pair.weight is None) == (shared == {"layers.1": "layers.0"})


def test_the_rows_of_the_last_unit_are_its_own_in_any_order_of_units():
    rule = seeded(lambda: DFA(mlp(), TASK, units=["layers.1", "layers.0"]))
    batch = images()
    credit = rule.credit(batch)["net.layers.0"]
    pair = rule.feedback_matrices()["net.layers.0"]
    output = rule(batch[0]).detach().requires_grad_()
    (error,) = torch.autograd.grad(TASK.loss(output, batch), output)
    torch.testing.assert_close(error @ pair.feedback.T, credit)


def test_sharing_between_units_of_unequal_size_names_both():
    net = MLP(in_features=20, hidden=[12, 9], num_classes=5)
    rule = DFA(net, TASK, shared_feedback={"layers.1": "layers.0"})
    with pytest.raises(ValueError, match=r"'layers.1' has 9 .*'layers.0'.* has 12"):
        rule.credit(images())


@pytest.mark.filterwarnings("ignore:.*in front of an activation:UserWarning")
def test_block_fa_takes_a_net_that_works_in_place_after_the_last_unit():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.unit, self.relu = nn.Linear(20, 12), nn.ReLU(inplace=True)
            self.head = nn.Linear(12, 5)

        def forward(self, x):
            return self.head(self.relu(self.unit(x)))

    def trained(inplace):
        rule = seeded(lambda: BlockFA(InPlace(), TASK, units=["unit"], readout=["head"]))
        rule.net.relu.inplace = inplace
        return gradients(rule, images())

    for name, gradient in trained(False).items():
        torch.testing.assert_close(trained(True)[name], gradient)


def test_an_error_that_is_a_feature_map_is_flattened():
    error = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shapes = {"unit": torch.Size([2, 3, 4, 4])}  # as many channels as classes
    auto = DirectFeedback(["unit"])
    credit = auto(error, shapes).dense("unit")
    torch.testing.assert_close(credit.flatten(1), error.flatten(1) @ auto.matrix.T)
    with pytest.raises(ValueError, match="feature map"):
        DirectFeedback(["unit"], error="per_position")(error, shapes)


def test_an_error_without_positions_reaches_all_positions_of_a_feature_map_alike():
    error = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    shapes = {"map": torch.Size([2, 3, 4, 6]), "flat": torch.Size([2, 7])}
    feedback = DirectFeedback(["map", "flat"], error="per_position")
    credits = feedback(error, shapes)
    assert feedback.matrix.shape == (3 + 7, 5)
    for n, c, k, m in ((0, 0, 0, 0), (1, 2, 3, 5), (1, 1, 2, 4)):
        expected = sum(error[n, i] * feedback.matrix[c, i] for i in range(5))
        torch.testing.assert_close(credits.dense("map")[n, c, k, m], expected)
    torch.testing.assert_close(credits.dense("flat"), error @ feedback.matrix[3:].T)


def test_a_negative_scale_of_the_loss_turns_a_normalised_credit_around():
    error = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    feedback = DirectFeedback(["unit"], normalize=True)
    shapes = {"unit": torch.Size([4, 6])}
    plain = feedback(error, shapes, 1.0).dense("unit")
    torch.testing.assert_close(feedback(-2 * error, shapes, -2.0).dense("unit"), -2 * plain)
    torch.testing.assert_close(rms_normalized(plain, 4), plain, rtol=1e-4, atol=0)
    chain = BlockFeedback(["below", "unit"], normalize=True)
    shapes = {"below": torch.Size([4, 5]), "unit": torch.Size([4, 3])}
    plain = chain(error, shapes, 1.0).dense("below")
    torch.testing.assert_close(chain(-2 * error, shapes, -2.0).dense("below"), -2 * plain)

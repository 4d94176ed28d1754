"""Classes of samples, also by nets with auxiliary heads."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.models import googlenet, inception_v3
from torchvision.models.googlenet import GoogLeNetOutputs

from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import Classification
from tests.support import images, loader, quiet_trainer, seeded

CLASSES = 5


def outputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, CLASSES, generator=generator) for _ in range(3)]


FORMS = {
    "tuple": tuple,
    "list": list,
    "GoogLeNetOutputs": lambda found: GoogLeNetOutputs(*found),
    "segmentation": lambda found: {"out": found[0], "aux": found[1], "aux2": found[2]},
    "logits after aux": lambda f: {"aux_1": f[1], "aux_2": f[2], "features": f[1], "logits": f[0]},
    "another name": lambda f: {"classes": f[0], "aux_1": f[1], "aux_2": f[2]},
    "without one": lambda f: (f[0], None, f[1], f[2]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, {"loss": nn.MSELoss(), "one_hot": True}])
def test_losses_of_auxiliary_heads_are_added(form, options):
    found, target = outputs(), torch.tensor([0, 4, 2, 2])
    batch = (None, target)
    task = Classification(CLASSES, aux_weight=0.25, **options)
    alone = [Classification(CLASSES, **options).loss(output, batch) for output in found]
    loss = task.loss(FORMS[form](found), batch)
    assert torch.allclose(loss, alone[0] + 0.25 * (alone[1] + alone[2]))
    assert torch.equal(task.loss(found[0], batch), alone[0])  # as in eval mode
    metric = task.metrics()["accuracy"]
    metric.update(FORMS[form](found), task.target(batch))
    assert float(metric.compute()) == float((found[0].argmax(1) == target).float().mean())
    assert list(Classification(CLASSES).state_dict()) == list(task.state_dict())


@pytest.mark.parametrize("form", FORMS)
def test_several_outputs_need_a_weight(form):
    with pytest.raises(ValueError, match=r"set the task's `aux_weight`"):
        Classification(CLASSES).loss(FORMS[form](outputs()), (None, torch.zeros(4).long()))
    with pytest.raises(ValueError, match=r"`aux_weight` is -1"):
        Classification(CLASSES, aux_weight=-1)


def test_what_is_not_a_head_is_refused():
    batch = (None, torch.zeros(4).long())
    task = Classification(CLASSES, aux_weight=0.3)
    with pytest.raises(ValueError, match=r"is \(4, 7\), expected \(4, 5\)"):
        task.loss((outputs()[0], torch.zeros(4, 7)), batch)
    with pytest.raises(ValueError, match="compares a tensor, but the net returns None"):
        task.loss(None, batch)


class WithAux(nn.Module):
    """Has a second head in training."""

    credit_units = ("first", "second")
    readout = ("head", "aux")

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(20, 8), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head, self.aux = nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)

    def forward(self, x):
        h = self.first(x)
        output = self.head(self.second(h))
        return (output, self.aux(h)) if self.training else output


def fit(rule):
    quiet_trainer(max_epochs=1).fit(rule, loader(), loader())
    return rule


def test_a_rule_trains_a_net_with_an_auxiliary_head():
    x, y = images()
    reference = seeded(lambda: WithAux())
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    rule = seeded(
        lambda: BP(
            WithAux(),
            Classification(CLASSES, aux_weight=0.4),
            optimizer=lambda groups: torch.optim.SGD(groups, 0.1),
        )
    )
    batches = [(x[:16], y[:16]), (x[16:32], y[16:32])]
    quiet_trainer(max_epochs=1).fit(rule, DataLoader(batches, batch_size=None))
    for rows in (slice(0, 16), slice(16, 32)):
        output, aux = reference(x[rows])
        optimizer.zero_grad()
        (cross_entropy(output, y[rows]) + 0.4 * cross_entropy(aux, y[rows])).backward()
        optimizer.step()
    for name, value in reference.state_dict().items():
        assert torch.allclose(rule.net.state_dict()[name], value, atol=1e-6), name


@pytest.mark.parametrize("kind", [BP, FA, BlockFA])
def test_rules_train_auxiliary_heads(kind):
    rule = seeded(lambda: kind(WithAux(), Classification(CLASSES, aux_weight=0.3)))
    before = {name: value.clone() for name, value in rule.net.named_parameters()}
    fit(rule)
    for name, value in rule.net.named_parameters():
        assert value.isfinite().all(), name
        assert not torch.equal(value, before[name]), name


def test_dfa_says_that_it_needs_one_error():
    rule = seeded(lambda: DFA(WithAux(), Classification(CLASSES, aux_weight=0.3)))
    with pytest.raises(ValueError, match=r"one tensor to take the error at"):
        fit(rule)


@pytest.mark.parametrize("make", [googlenet, inception_v3])
def test_nets_of_torchvision(make):
    net = seeded(lambda: make(weights=None, num_classes=CLASSES, init_weights=False))
    rule = BP(net, Classification(CLASSES, aux_weight=0.3))
    size = 96 if make is googlenet else 299
    batch = (torch.randn(2, 3, size, size), torch.tensor([1, 3]))
    loss, _ = rule.surrogate(batch)
    loss.backward()
    auxiliary = [p.grad for name, p in net.named_parameters() if name.lower().startswith("aux")]
    assert auxiliary
    assert all(grad is not None for grad in auxiliary)
    with pytest.raises(ValueError, match="aux_weight"):
        BP(net, Classification(CLASSES)).surrogate(batch)

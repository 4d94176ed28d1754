"""Units by name: nets that know nothing of lit_credit."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from lit_credit.callbacks import CreditAlignment, GradientNorms, WeightAlignment
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import Classification
from tests.support import gradients, quiet_trainer, seeded

RESNET = {"units": ["conv1+bn1+relu+maxpool", "layer*.*"], "readout": ["fc"]}
VIT = {
    "units": ["conv_proj", "encoder.layers.*"],
    "readout": ["encoder.ln", "heads"],
    "stray": "train",
}


def fast(parameters):
    return torch.optim.AdamW(parameters, lr=2e-3)


def small_resnet():
    return resnet18(num_classes=10)


def small_vit():
    return VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        num_classes=10,
    )


class Batches:
    """CIFAR-shaped batches of one fixed task."""

    def __init__(self, batch_size=8, steps=2):
        generator = torch.Generator().manual_seed(0)
        self.batches = [
            (torch.randn(batch_size, 3, 32, 32, generator=generator), torch.arange(batch_size) % 10)
            for _ in range(steps)
        ]

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


@pytest.mark.parametrize(("net", "names"), [(small_resnet, RESNET), (small_vit, VIT)])
def test_torchvision_nets_learn_by_dfa(net, names):
    rule = DFA(seeded(net), Classification(), optimizer=fast, **names)
    before = {name: value.clone() for name, value in rule.net.named_parameters()}
    batch = Batches(steps=1).batches[0]
    first = rule.train().batch_loss(batch).item()
    quiet_trainer(max_epochs=30, limit_val_batches=0).fit(rule, Batches(steps=1))
    assert not any(torch.equal(value, before[name]) for name, value in rule.net.named_parameters())
    # In the mode of training: a few steps on one batch leave running statistics behind.
    assert rule.train().batch_loss(batch).item() < 0.92 * first


def test_layers_inside_of_residual_blocks_can_be_units():
    first = "layer*.*.conv1+layer*.*.bn1+layer*.*.relu"
    second = "layer*.*.conv2+layer*.*.bn2"
    units = ["conv1+bn1+relu", first, second, "layer*.*.downsample"]
    rule = DFA(seeded(small_resnet), Classification(), units=units, readout=["fc"])
    found = gradients(rule, Batches().batches[0])
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


class Skipping(nn.Module):
    """Two layers, the second with a skip connection around it, and a head that sees both."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        h = self.first(x)
        return self.head(h + torch.tanh(self.second(h)) + x)


@pytest.mark.filterwarnings("ignore:.*in front of tanh:UserWarning")
def test_no_credit_leaks_around_a_unit():
    """Without feedback the units get nothing, though a skip connection leads to the head."""
    names = {"units": ["first", "second"], "readout": ["head"]}
    batch = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    silent = gradients(
        DFA(seeded(Skipping), Classification(3), feedback_scale=1e-30, **names), batch
    )
    for name, gradient in silent.items():
        assert (gradient.abs().max() > 1e-3) == name.startswith("head"), name
    exact = gradients(BP(seeded(Skipping), Classification(3), **names), batch)
    torch.testing.assert_close(silent["head.weight"], exact["head.weight"])


def test_fa_on_torchvision_nets():
    for net in (small_resnet, small_vit):
        rule = FA(seeded(net), Classification())
        before = {name: value.clone() for name, value in rule.net.named_parameters()}
        quiet_trainer(max_epochs=1, limit_val_batches=0).fit(rule, Batches())
        for name, value in rule.net.named_parameters():
            assert value.isfinite().all(), name
            assert not torch.equal(value, before[name]), name


DIAGNOSTICS = (GradientNorms, CreditAlignment, WeightAlignment)


@pytest.mark.parametrize("frozen", [False, True])
def test_diagnostics_before_the_first_step_leave_the_proof_to_it(frozen, tmp_path):
    weights = []
    for callbacks in ([], [k(figure=False) for k in DIAGNOSTICS]):
        net = seeded(small_vit)
        net.class_token.requires_grad_(not frozen)
        names = {"units": VIT["units"], "readout": VIT["readout"]}
        rule = FA(net, Classification(), feedback_seed=0, **names)
        options = {"max_epochs": 1, "callbacks": callbacks, "default_root_dir": tmp_path}
        quiet_trainer(**options).fit(rule, Batches())
        assert net.class_token.requires_grad != frozen
        assert net.class_token.grad is None or not frozen
        weights.append(rule.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_block_fa_on_a_vit():
    rule = BlockFA(seeded(small_vit), Classification(), **VIT)
    quiet_trainer(max_epochs=1, limit_val_batches=0).fit(rule, Batches())
    credit = rule.credit(Batches().batches[0])
    assert credit["net.encoder.layers.encoder_layer_0"].shape == (8, 17, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"`units` is not given(.|\n)*layer1.0"),
        ({"units": ["block*"], "readout": ["fc"]}, r"'block\*' matches nothing"),
        ({"units": ["layer*.*", "layer1.0"]}, "matched twice"),
        ({"units": ["layer*", "layer1.0"], "readout": ["fc"]}, r"'layer1' contains 'layer1.0'"),
        ({"units": ["layer*.*"], "readout": ["fc"]}, r"conv1.weight(.|\n)*stray"),
        ({**RESNET, "recompute": True}, r"`recompute`(.|\n)*'bn1'(.|\n)*running statistics"),
    ],
)
def test_a_wrong_choice_of_units_is_refused_with_the_candidates(arguments, message):
    with pytest.raises(ValueError, match=message):
        DFA(small_resnet(), Classification(), **arguments)


def test_parameters_without_a_submodule_of_their_own_get_the_remedy_that_works():
    """class_token lies in the net, pos_embedding in a submodule that holds the units."""
    says = r"class_token, encoder.pos_embedding cannot be named.*'train'.*others, conv_proj.weight"
    with pytest.raises(ValueError, match=says):
        DFA(small_vit(), Classification(), units=["encoder.layers.*"], readout=["heads"])
    with pytest.raises(ValueError, match="cannot be named") as raised:
        DFA(small_vit(), Classification(), **{**VIT, "stray": "error"})
    assert "others" not in str(raised.value)
    DFA(small_vit(), Classification(), **VIT)


def test_stray_parameters_can_be_frozen():
    rule = DFA(small_vit(), Classification(), **{**VIT, "stray": "freeze"})
    assert not rule.net.class_token.requires_grad
    assert rule.net.conv_proj.weight.requires_grad


def test_a_unit_that_runs_twice_is_refused():
    class Twice(Skipping):
        def forward(self, x):
            return self.head(self.first(self.first(x)) + self.second(x))

    batch = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    names = {"units": ["first", "second"], "readout": ["head"]}
    with pytest.raises(ValueError, match="'first' runs more than once"):
        DFA(Twice(), Classification(3), **names).surrogate(batch)


def test_a_compiled_net_is_refused_by_dfa_and_taken_by_fa():
    net = torch.compile(Skipping(), backend="aot_eager")
    with pytest.raises(ValueError, match="'Skipping' is compiled"):
        DFA(net, Classification(3), units=["_orig_mod.first"], readout=["_orig_mod.head"])
    batch = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    plain = gradients(FA(seeded(Skipping), Classification(3)), batch)
    compiled = FA(seeded(lambda: torch.compile(Skipping(), backend="aot_eager")), Classification(3))
    for name, gradient in gradients(compiled, batch).items():
        torch.testing.assert_close(gradient, plain[name.removeprefix("_orig_mod.")])

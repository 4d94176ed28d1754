"""Local losses: the scalar, a loop written by hand, resumed runs, and what is refused."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms
from lit_credit.cli import main
from lit_credit.datamodules import Digits
from lit_credit.datamodules.tensor_loader import TensorLoader
from lit_credit.feedback import derive_seed
from lit_credit.models import GPT, MLP, ResidualMLP
from lit_credit.rules import LocalLosses
from lit_credit.rules.local_heads import MOST_FEATURES
from lit_credit.tasks import Classification, NextToken, Task
from tests.support import loader, quiet_trainer, seeded

MONO = {"loss": "pred", "prediction": "last", "readout": [], "stray": "freeze"}


class Conv(nn.Module):
    """Two layers of a net that knows nothing of lit_credit."""

    def __init__(self, channels=6):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 4, 3)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.fc = nn.Linear(4 * 6 * 6, 10)

    def forward(self, x):
        return self.fc(self.act2(self.conv2(self.act1(self.conv1(x)))).flatten(1))


class Regression(Task):
    """Batches of inputs and numbers."""

    def inputs(self, batch):
        return (batch[0],)

    def target(self, batch):
        return batch[1]

    def metrics(self):
        return {}

    def loss(self, output, batch):
        return F.mse_loss(output, batch[1])


CONV = {"units": ["conv1+act1", "conv2+act2"], "readout": ["fc"]}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def mlp():
    return MLP(20, [8, 6], num_classes=5)


def batch(n=16):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 20, generator=generator), torch.arange(n) % 5


def images(n=16, classes=10):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % classes


def made(net=mlp, data=None, task=None, **kwargs):
    """A rule whose heads are there, and are not zero."""
    rule = seeded(lambda: LocalLosses(net(), task or Classification(5), **kwargs))
    rule.prepare(batch() if data is None else data)
    generator = torch.Generator().manual_seed(4)
    for name, value in rule.heads.named_parameters():
        if name.startswith("pred"):
            value.data.normal_(0, 0.3, generator=generator)
    return rule


def cosines(rows):
    centred = rows - rows.mean(1, keepdim=True)
    unit = centred / (centred.norm(dim=1, keepdim=True) + 1e-8)
    return unit @ unit.T


def heads(rule, index):
    names = ("pred_weight", "pred_bias", "sim_weight")
    return [getattr(rule.heads, f"{name}_{index}", None) for name in names]


def written(rule, x, y, share, penalty=0.0):
    """The scalar, layer by layer, and the losses of the layers by themselves."""
    local, h = [], x
    for index, layer in enumerate(rule.net.layers):
        out = layer(h)
        weight, bias, similar = heads(rule, index)
        loss = penalty * out.square().mean()
        if share < 1:
            loss = loss + (1 - share) * F.cross_entropy(out @ weight.T + bias, y)
        if share:
            one_hot = F.one_hot(y, rule.net.head.out_features).float()
            found = cosines(out @ similar.T)
            loss = loss + share * (found - cosines(one_hot)).square().mean()
        local.append(loss)
        h = out.detach()
    return F.cross_entropy(rule.net.head(h), y) + sum(local)


@pytest.mark.parametrize("penalty", [0.0, 0.5])
@pytest.mark.parametrize(("loss", "share"), [("pred", 0.0), ("sim", 1.0), ("predsim", 0.7)])
def test_the_scalar_is_the_readouts_loss_and_the_local_losses(loss, share, penalty):
    rule = made(loss=loss, sim_weight=0.7, scale_penalty=penalty)
    found, scalar = rule.surrogate(batch())
    expected = written(rule, *batch(), share, penalty)
    torch.testing.assert_close(scalar, expected)
    torch.testing.assert_close(found, rule.batch_loss(batch()))
    trained = list(rule.parameters())
    for one, other in zip(
        torch.autograd.grad(scalar, trained), torch.autograd.grad(expected, trained), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_credit_is_the_gradient_of_the_local_loss_at_the_output():
    rule = made(loss="predsim", sim_weight=0.7)
    credit = rule.credit(batch())
    assert list(credit) == ["net.layers.0", "net.layers.1"]
    h = batch()[0]
    for index, layer in enumerate(rule.net.layers):
        out = layer(h).detach().requires_grad_()
        weight, bias, similar = heads(rule, index)
        loss = 0.3 * F.cross_entropy(out @ weight.T + bias, batch()[1])
        target = cosines(F.one_hot(batch()[1], 5).float())
        loss = loss + 0.7 * (cosines(out @ similar.T) - target).square().mean()
        torch.testing.assert_close(credit[f"net.layers.{index}"], torch.autograd.grad(loss, out)[0])
        h = out.detach()


@pytest.mark.parametrize(("name", "share"), [("pred", 0.0), ("predsim", 0.99)])
def test_yaml_equals_the_loop_after_20_steps(name, share, tmp_path):
    args = ["fit", "--config", f"configs/rules/{name}.yaml", "--trainer.max_steps", "20"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    assert main([*args, "--trainer.enable_progress_bar", "false"]) == 0
    saved = next(tmp_path.rglob("last.ckpt"))
    trained = torch.load(saved, weights_only=True)["state_dict"]

    rule = seeded(lambda: LocalLosses(MLP(64, [256, 256]), Classification(), loss=name))
    batches = list(Digits(batch_size=64, seed=42, val_split=0).train_dataloader())[:20]
    rule.heads = Heads(share > 0)
    optimizer = torch.optim.AdamW(rule.parameters(), lr=1e-3, weight_decay=0.01)
    for x, y in batches:
        optimizer.zero_grad()
        written(rule, x.flatten(1), y, share).backward()
        optimizer.step()
    expected = rule.state_dict()
    names = [name for name in trained if name.startswith(("net.", "heads."))]
    assert {*names} == {name for name in expected if name.startswith(("net.", "heads."))}
    for name in names:
        torch.testing.assert_close(trained[name], expected[name], atol=1e-5, rtol=0, msg=name)


class Heads(nn.Module):
    """The heads of two layers of 256, drawn as torch draws a linear layer."""

    def __init__(self, similar):
        super().__init__()
        for index in range(2):
            self.register_parameter(f"pred_weight_{index}", nn.Parameter(torch.zeros(10, 256)))
            self.register_parameter(f"pred_bias_{index}", nn.Parameter(torch.zeros(10)))
            if similar:
                generator = torch.Generator().manual_seed(derive_seed(42, f"layers.{index}"))
                drawn = torch.empty(256, 256).uniform_(-1 / 16, 1 / 16, generator=generator)
                self.register_parameter(f"sim_weight_{index}", nn.Parameter(drawn))


# Prediction


@pytest.mark.parametrize("prediction", ["last", "sum"])
def test_heads_predict_in_training_validation_and_prediction(prediction):
    rule = made(**(MONO | {"prediction": prediction}))
    x, y = batch()
    first = rule.net.layers[0](x)
    outputs = [first, rule.net.layers[1](first)]
    parts = [o @ heads(rule, i)[0].T + heads(rule, i)[1] for i, o in enumerate(outputs)]
    expected = parts[1] if prediction == "last" else parts[0] + parts[1]
    torch.testing.assert_close(rule(x), expected)
    torch.testing.assert_close(rule.surrogate((x, y))[0], F.cross_entropy(expected, y))
    torch.testing.assert_close(rule.predict_step((x, y), 0), expected)
    (logged,) = quiet_trainer().validate(
        rule, TensorLoader((x, y), 16, shuffle=False), verbose=False
    )
    right = (expected.argmax(1) == y).float().mean().item()
    assert logged["val/accuracy"] == pytest.approx(right)
    assert logged["val/loss"] == pytest.approx(F.cross_entropy(expected, y).item())


def test_mono_forward_leaves_the_nets_own_head_as_it_was():
    rule = seeded(lambda: LocalLosses(mlp(), Classification(5), **MONO))
    before = {name: value.clone() for name, value in rule.net.state_dict().items()}
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(rule, loader(), loader(n=32))
    for name, value in rule.net.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("head.")
    assert [group["name"] for group in trainer.optimizers[0].param_groups] == ["units", "heads"]


# Heads in a training


def fit(rule, folder, steps, ckpt_path=None, **kwargs):
    trainer = quiet_trainer(max_steps=steps, default_root_dir=folder, **kwargs)
    trainer.fit(rule, loader(), loader(n=32), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("options", [{"loss": "predsim"}, MONO], ids=["predsim", "mono"])
def test_a_run_resumes_bit_exactly_and_loads_without_a_trainer(options, tmp_path):
    def make():
        return LocalLosses(mlp(), Classification(5), **options)

    whole = seeded(make)
    checkpoint = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=9, save_top_k=-1)
    fit(whole, tmp_path, 14, callbacks=[checkpoint], enable_checkpointing=True)
    saved = tmp_path / "step=9.ckpt"
    resumed = seeded(make, seed=7)
    fit(resumed, tmp_path, 14, ckpt_path=saved)
    assert any(name.startswith("heads.") for name in whole.state_dict())
    assert whole.state_dict().keys() == resumed.state_dict().keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    cut = LocalLosses.load_from_checkpoint(saved, net=mlp(), task=Classification(5), **options)
    stored = torch.load(saved, weights_only=True)["state_dict"]
    assert all(torch.equal(stored[name], value) for name, value in cut.state_dict().items())
    assert cut(batch()[0]).shape == (16, 5)


def test_heads_that_are_there_are_kept_and_have_a_stream_for_each_unit():
    rule = made(loss="predsim", heads_seed=5)
    before = {name: value.clone() for name, value in rule.heads.named_parameters()}
    state = torch.random.get_rng_state()
    rule.prepare(batch())
    assert all(torch.equal(before[n], value) for n, value in rule.heads.named_parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    alike = made(loss="sim", heads_seed=5)
    assert torch.equal(alike.heads.sim_weight_1, before["sim_weight_1"])
    other = made(loss="sim", heads_seed=6)
    assert not torch.equal(other.heads.sim_weight_1, before["sim_weight_1"])


def test_the_group_of_heads_has_its_own_options(tmp_path):
    rule = seeded(
        lambda: LocalLosses(mlp(), Classification(5), sgd, group_options={"heads": {"lr": 0.5}})
    )
    trainer = fit(rule, tmp_path, 1)
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates == {"units": 0.1, "readout": 0.1, "heads": 0.5}


@pytest.mark.filterwarnings("ignore")
def test_training_in_bf16_keeps_float32_heads(tmp_path):
    rule = seeded(lambda: LocalLosses(mlp(), Classification(5), sgd))
    exact = seeded(lambda: LocalLosses(mlp(), Classification(5), sgd))
    fit(rule, tmp_path, 6, precision="bf16-mixed")
    fit(exact, tmp_path, 6)
    for name, value in exact.state_dict().items():
        if value.is_floating_point():
            assert rule.state_dict()[name].dtype == torch.float32
            assert rule.state_dict()[name].any(), name
            torch.testing.assert_close(rule.state_dict()[name], value, atol=5e-2, rtol=0)


# Nets


def learns(rule, data, steps=30):
    """The scalar falls, and so does the loss of the prediction."""
    optimizer = torch.optim.Adam(rule.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, scalar = rule.surrogate(data)
        scalar.backward()
        optimizer.step()
        losses.append((loss.item(), scalar.item()))
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < 0.9 * losses[0][1]
    assert all(p.grad is not None for p in rule.parameters() if p.requires_grad)


def tokens():
    x = torch.arange(24).reshape(4, 6) % 7
    return x, (x + 1) % 7


@pytest.mark.parametrize("loss", ["pred", "sim", "predsim"])
def test_a_conv_net_learns(loss):
    rule = made(Conv, images(), Classification(), loss=loss, **CONV)
    learns(rule, images())


@pytest.mark.parametrize("loss", ["pred", "predsim"])
def test_a_residual_net_learns(loss):
    def net():
        return ResidualMLP(20, width=8, depth=2, num_classes=5)

    learns(made(net, loss=loss), batch())


@pytest.mark.parametrize("prediction", ["readout", "sum"])
def test_a_gpt_learns_a_prediction_at_each_position(prediction):
    def net():
        return GPT(vocab_size=7, block_size=6, depth=2, heads=2, width=8)

    rule = made(net, tokens(), NextToken(), loss="pred", prediction=prediction)
    assert heads(rule, 1)[0].shape == (7, 8)
    assert rule(tokens()[0]).shape == (4, 6, 7)
    learns(rule, tokens())


def test_a_regression_has_heads_of_the_outputs_width():
    generator = torch.Generator().manual_seed(0)
    data = batch()[0], torch.randn(16, 5, generator=generator)
    rule = made(data=data, task=Regression(), loss="pred")
    assert heads(rule, 0)[0].shape == (5, 8)
    learns(rule, data, steps=60)


def test_maps_are_pooled_to_at_most_2048_features():
    rule = made(lambda: Conv(40), images(), Classification(), loss="pred", **CONV)
    assert heads(rule, 0)[0].shape == (10, 40 * 7 * 7)
    assert 40 * 7 * 7 <= MOST_FEATURES < 40 * 8 * 8
    maps = rule.net.act1(rule.net.conv1(images()[0]))
    weight, bias, _ = heads(rule, 0)
    expected = F.adaptive_avg_pool2d(maps, 7).flatten(1) @ weight.T + bias
    torch.testing.assert_close(rule.heads.predict("conv1+act1", maps, positions=False), expected)


def test_diagnostics_measure_local_losses(tmp_path):
    net = ResidualMLP(20, width=8, depth=2, num_classes=5)
    rule = seeded(lambda: LocalLosses(net, Classification(5)))
    watches = [watch(figure=False) for watch in (CreditAlignment, GradientNorms, ResidualNorms)]
    fit(rule, tmp_path, 6, callbacks=watches)
    assert {path.stem for path in tmp_path.rglob("*.jsonl")} >= {
        "credit_alignment",
        "gradient_norms",
        "residual_norms",
    }


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "cosine"}, "`loss`.*pred"),
        ({"prediction": "first"}, "`prediction`.*last"),
        ({"sim_weight": 1.5}, "`sim_weight`.*1.5"),
        ({"loss": "sim", "prediction": "last"}, "heads of `loss` 'sim' do not predict"),
        ({"readout": []}, "set `prediction` to 'last' or 'sum'"),
        ({"readout": [], "prediction": "last"}, "head.*`stray`.*freeze"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        LocalLosses(mlp(), Classification(5), **options)


def test_similarity_refuses_sequences_before_training():
    net = GPT(vocab_size=7, block_size=6, depth=1, heads=2, width=8)
    with pytest.raises(ValueError, match=r"compares samples.*Set `loss` to 'pred'"):
        LocalLosses(net, NextToken(), loss="predsim").prepare(tokens())


def test_similarity_refuses_targets_without_classes():
    rule = LocalLosses(mlp(), Regression(), loss="predsim")
    data = batch()[0], torch.randn(16, 5)
    rule.prepare(data)
    with pytest.raises(ValueError, match=r"Regression.*classes.*'pred'"):
        rule.surrogate(data)


def test_heads_that_do_not_exist_yet_predict_nothing():
    rule = LocalLosses(mlp(), Classification(5), **MONO)
    with pytest.raises(ValueError, match=r"no head yet.*`prepare"):
        rule(batch()[0])

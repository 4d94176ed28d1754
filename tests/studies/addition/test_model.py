"""The micro adder against a loop, its fast pass against the plain one."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from lit_credit.inspect.attention.recording import recorded_attention
from lit_credit.rules import BP, DFA, FA
from lit_credit.studies.addition import Addition, AdditionTask, MicroAdder
from tests.support import quiet_trainer, seeded

CONFIGS = Path("configs/addition")


def options(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return config["model"]["init_args"]["net"]["init_args"]


NETS = {name: options(name) for name in ("57p", "62p", "67p", "74p", "wide")}


def make(name, **kwargs):
    """With all weights away from 0, and from the gains and angles that they start with."""
    torch.manual_seed(1)
    net = MicroAdder(**NETS[name], **kwargs).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return net


def tokens_of(net, count):
    data = Addition(digits=net.layout.digits, batch_size=count, seed=3)
    return next(iter(data.train_dataloader()))[0][:, :-1]


def loop_logits(net, digits):
    """One sum, one position, one key at a time, in python numbers and short vectors."""
    embed, attention, ffn = net.embed, net.block.attention, net.block.ffn
    count, h_matrix = net.layout.digits, net.head.weight
    radius, start, step = embed.digits.radius, embed.digits.start, embed.digits.step
    point = [
        radius * torch.stack([(start + d * step).cos(), (start + d * step).sin()])
        for d in range(10)
    ]
    r, phase, slope, offset = embed.positions.spiral

    def position(name):
        if name == "+":
            return torch.zeros(3, dtype=torch.float64)
        if name == "=":
            return embed.positions.equals
        i = int(name[1:])
        if i == count:
            return embed.positions.last
        angle = 2 * math.pi * i / 10 + phase
        return torch.stack([r * angle.cos(), r * angle.sin(), slope * i + offset])

    def normed(x, weight):
        return x / torch.sqrt((x**2).sum() / 5 + 1e-5) * weight

    names = net.layout.names[:-1]
    stream = [torch.cat([point[d], position(name)]) for d, name in zip(digits, names, strict=True)]
    z = [normed(x, net.block.norm1.weight) for x in stream]
    keys = [attention.qk.weight @ x[2:] for x in z]
    turn = torch.stack(
        [
            torch.stack([attention.angle.cos(), -attention.angle.sin()]),
            torch.stack([attention.angle.sin(), attention.angle.cos()]),
        ]
    )
    logits = []
    for t, x in enumerate(stream):
        pairs = keys[t][: len(keys[t]) // 2 * 2].reshape(-1, 2)
        query = torch.cat([*(turn @ pair for pair in pairs), keys[t][2 * len(pairs) :]])
        scores = torch.stack([query @ keys[s] for s in range(t + 1)]) / math.sqrt(len(query))
        mixed = sum(w * z[s][:2] for s, w in enumerate(scores.softmax(0)))
        if attention.rank_one:
            a, b = attention.output.a.weight, attention.output.b.weight
            x = x + (a[0] @ (h_matrix.T @ mixed)) * b[:, 0]
        else:
            x = x + attention.output.weight @ mixed
        hidden = ffn.fc1.weight @ normed(x, net.block.norm2.weight)
        if ffn.fc1.bias is not None:
            hidden = hidden + ffn.fc1.bias
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        x = x + (h_matrix.T if ffn.fc2 is None else ffn.fc2.weight) @ hidden
        y = h_matrix @ normed(x, net.norm.weight)
        logits.append(torch.stack([y @ e for e in point]))
    return torch.stack(logits)


@pytest.mark.parametrize(("name", "count"), [*zip(NETS, (57, 62, 67, 74, 233), strict=True)])
def test_parameters(name, count):
    net = MicroAdder(**NETS[name])
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("name", NETS)
def test_plain_and_fast_passes_against_a_loop(name):
    net = make(name, digits=3)
    tokens = tokens_of(net, 4)
    expected = torch.stack([loop_logits(net, row) for row in tokens.tolist()])
    torch.testing.assert_close(net(tokens), expected[:, net.layout.rows])
    net.fast = False
    torch.testing.assert_close(net(tokens), expected)


@pytest.mark.parametrize("name", NETS)
def test_the_fast_pass_has_the_logits_and_gradients_of_the_plain_one(name):
    net = make(name)
    tokens = tokens_of(net, 64)
    rows, parameters = net.layout.rows, [p for p in net.parameters() if p.requires_grad]
    fast = net(tokens)
    net.fast = False
    plain = net(tokens)[:, rows]
    assert fast.shape == (64, 12, 10)
    torch.testing.assert_close(fast, plain)
    weight = torch.randn_like(fast)
    for one, other in zip(
        torch.autograd.grad((fast * weight).sum(), parameters),
        torch.autograd.grad((plain * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    in_single = net.float()(tokens)
    net.fast = True
    torch.testing.assert_close(net(tokens), in_single[:, rows], rtol=1e-5, atol=1e-5)


def test_the_net_starts_as_the_study_has_it():
    torch.manual_seed(0)
    net = MicroAdder()
    table = net.embed.digits.table()
    torch.testing.assert_close(table.norm(dim=1), torch.full((10,), 2.5))
    assert table[0].tolist() == pytest.approx([2.5 * math.cos(-1.2), 2.5 * math.sin(-1.2)])
    positions = net.embed.positions()
    assert positions[3].tolist() == pytest.approx(
        [3.5 * math.cos(0.6 * math.pi), 3.5 * math.sin(0.6 * math.pi), 0.45], abs=1e-6
    )
    assert torch.equal(positions[0:10], positions[11:21])
    assert torch.equal(positions[0:10], positions[22:32])
    assert not positions[10].any()
    assert 0 < positions[[21, 32]].abs().max() < 0.1
    assert net.norm.weight.tolist() == pytest.approx(
        [1, 3.057248, 4.328698, 4.328698, 3.057248], abs=1e-5
    )
    assert not net.norm.weight.requires_grad
    assert net.block.attention.angle == 0
    assert not net.block.attention.output.b.weight.any()


def test_the_plain_pass_runs_where_someone_looks_inside():
    net = make("67p")
    tokens = tokens_of(net, 4)
    with recorded_attention(net) as calls:
        assert net(tokens).shape == (4, 33, 10)
    (call,) = calls
    assert call.weights.shape == (4, 1, 33, 33)
    # |E[d]| is the same for all digits, so that attention does not depend on the sum.
    torch.testing.assert_close(call.weights[1:], call.weights[:1].expand(3, -1, -1, -1))
    assert not call.weights.triu(1).any()
    with net.head.register_forward_hook(lambda *_: None):
        assert net(tokens).shape == (4, 33, 10)
    called = []
    with net.block.register_full_backward_pre_hook(lambda *_: called.append(True)):
        net(tokens).sum().backward()
    assert called
    with net.register_forward_hook(lambda *_: None):
        assert net(tokens).shape == (4, 12, 10)
    assert net(tokens).shape == (4, 12, 10)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", ["57p", "67p", "wide"])
@pytest.mark.parametrize("rule", [BP, FA, DFA])
def test_every_rule_trains_it(name, rule):
    module = seeded(
        lambda: rule(
            MicroAdder(3 if name == "wide" else 10, **NETS[name]),
            AdditionTask(3 if name == "wide" else 10),
            lambda groups: torch.optim.AdamW(groups, lr=0.01),
        )
    )
    before = {n: p.detach().clone() for n, p in module.net.named_parameters()}
    data = Addition(
        digits=module.net.layout.digits,
        batch_size=64,
        steps_per_epoch=30,
        val_size=50,
        val_chains=5,
        seed=0,
    )
    trainer = quiet_trainer(max_epochs=1)
    batch = next(iter(data.val_dataloader()))
    start = module.batch_loss(batch).item()
    trainer.fit(module, datamodule=data)
    assert module.batch_loss(batch).item() < start - 0.02
    frozen = {"norm.weight"} if NETS[name].get("norm") == "frozen" else set()
    for parameter_name, p in module.net.named_parameters():
        assert torch.equal(p, before[parameter_name]) == (parameter_name in frozen), parameter_name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "none"}, "`norm` is 'none', expected 'frozen', 'shared' or 'separate'"),
        ({"positions": "rotary"}, "`positions` is 'rotary'"),
        ({"output": "rank_two"}, "`output` is 'rank_two'"),
        ({"tie_ffn": True, "hidden": 3}, "`hidden` is 3, expected 2"),
        ({"qk_width": 1}, "`qk_width` is 1"),
    ],
)
def test_arguments_without_a_meaning_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MicroAdder(**wrong)


def test_sequences_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match="`digits` of the net is 2, which makes 9 inputs"):
        MicroAdder(digits=2)(torch.zeros(1, 10, dtype=torch.long))

"""What was seen as attention is heads, queries and keys, or is refused before it is measured."""

from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_credit.callbacks import (
    AttentionMaps,
    HeadBehaviour,
    ProbeDiagnostic,
    SoftmaxJacobian,
    SymbolAttention,
)
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.heads.attention import without_sinks
from tests.callbacks.heads import attention_shapes as shapes

DIAGNOSTICS = [
    AttentionMaps,
    SoftmaxJacobian,
    lambda: HeadBehaviour(period=shapes.T // 2),
    SymbolAttention,
]
NAMES = ["AttentionMaps", "SoftmaxJacobian", "HeadBehaviour", "SymbolAttention"]


def data():
    x = shapes.tokens(9)
    prior, rows = torch.full((9,), 1 / 9), torch.full((9, shapes.SYMBOLS), 1 / shapes.SYMBOLS)
    return SimpleNamespace(contexts=lambda: (x, prior, rows))


def proved(make, attention):
    """What the diagnostic proves of a net, and measures."""
    module, callback = shapes.Net(attention).eval(), make()
    trainer = SimpleNamespace(datamodule=data())
    callback.prepare(trainer, module)
    if isinstance(callback, ProbeDiagnostic):
        chunks = [Chunk(module, shapes.tokens())]
    else:
        callback.begin(trainer, module)
        chunks = list(callback.chunks(module))
    return callback.prove(chunks[0]), callback.measure(module, chunks)


@pytest.mark.few(12)
@pytest.mark.parametrize("make", DIAGNOSTICS, ids=NAMES)
@pytest.mark.parametrize("kind", shapes.RIGHT)
def test_attention_over_positions_passes(kind, make):
    found, values = proved(make, kind())
    with_sinks = [found.pop(text) for text in list(found) if "sinks" in text]
    assert bool(with_sinks) == (kind in (shapes.Sink, shapes.SinkInFront, shapes.MultiheadWithKey))
    (leak,) = found.values()
    assert leak < 1e-6
    assert any("/attention" in tag and tag.endswith("/H01") for tag in values)
    assert not any("/H02" in tag for tag in values)


@pytest.mark.few(6)
@pytest.mark.parametrize("named", [True, False], ids=["heads named", "heads not named"])
@pytest.mark.parametrize("kind", shapes.WRONG)
def test_what_is_no_attention_over_positions_is_refused(kind, named):
    for make in DIAGNOSTICS:
        with pytest.raises(MisconfigurationException) as error:
            proved(make, kind(named))
        text = str(error.value)
        assert "the attention of 'attention'" in text
        assert "should be (samples, heads, queries, keys), but " in text
        assert "`returns_attention = True`" in text
        assert "\n" not in text
        assert type(make()).__name__ in text


def test_the_number_of_heads_is_compared_or_said_to_be_unknown():
    found, _ = proved(AttentionMaps, shapes.Written(named=False))
    assert found["attentions whose number of heads no attribute of the module tells"] == 1
    attention = shapes.Written()
    attention.num_heads = 4
    with pytest.raises(MisconfigurationException, match="dimension is 2, and 'attention' has 4"):
        proved(AttentionMaps, attention)


def test_units_that_pass_are_named_and_taken():
    class Both(torch.nn.ModuleDict):
        def __init__(self):
            super().__init__({"attention": shapes.Written(), "channel_attn": shapes.Channels()})

        def forward(self, x):
            return self["channel_attn"](self["attention"](x))

    module = shapes.Net(torch.nn.Identity())
    module.attention = Both()
    with pytest.raises(MisconfigurationException, match=r"such as attention\.attention, or"):
        AttentionMaps().prove(Chunk(module, shapes.tokens()))
    assert AttentionMaps(units=["attention.attention"]).prove(Chunk(module, shapes.tokens()))


def test_weights_and_hooks_are_as_before_and_outputs_too():
    module = shapes.Net(shapes.Written()).eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    expected = module(shapes.tokens())
    AttentionMaps().prove(Chunk(module, shapes.tokens()))
    assert torch.equal(module(shapes.tokens()), expected)
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("kind", [shapes.Sink, shapes.SinkInFront])
def test_a_sink_has_its_share_and_no_score(kind):
    attention = kind()
    module, callback = shapes.Net(attention).eval(), HeadBehaviour(period=shapes.T // 2)
    callback.prepare(SimpleNamespace(), module)
    callback.prove(Chunk(module))
    with torch.no_grad():
        attention.score.fill_(-40.0)  # it takes no part
    alone = callback.measure(module)
    with torch.no_grad():
        attention.score.fill_(40.0)  # it takes it all
    values = callback.measure(module)
    plain = shapes.Written()
    plain.load_state_dict(attention.state_dict(), strict=False)
    module.attention = plain
    without = HeadBehaviour(period=shapes.T // 2)
    without.prepare(SimpleNamespace(), module)
    without.prove(Chunk(module))
    assert alone == pytest.approx(without.measure(module), abs=1e-5)
    assert all(value < 1e-6 for value in values.values())


def test_keys_that_are_no_sinks_stay():
    a = torch.rand(1, 1, 2, 5)
    assert torch.equal(without_sinks(a, 4, {4}), a[..., :4])
    assert torch.equal(without_sinks(a, 4, {0}), a[..., 1:])
    assert without_sinks(a, 4, set()) is a
    assert without_sinks(a, 3, {4}) is a
    assert without_sinks(a, 5, {0}) is a

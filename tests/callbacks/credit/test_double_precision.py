"""A module in float64, whatever it casts to, against the same written out in float64."""

import math

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.credit.double_precision import double_precision
from lit_credit.callbacks.credit.reference import DoubleReference
from lit_credit.callbacks.credit.reference_validity import ReferenceValidity
from lit_credit.inspect.capture import Point
from tests.support import Interrupted

WIDTH, CLASSES, N = 8, 3, 4
OUTSIDE = [torch.randn(WIDTH, WIDTH), torch.zeros(N, WIDTH)]
POINTS = [Point("read", "output")]


class Rounded(torch.autograd.Function):
    """A square whose forward and backward are written for float32."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.float().square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient.float() * 2 * x.to(torch.float32)


# What a net may do to a tensor, and the same in float64.
PARTS = {
    "float": (lambda m, h: h.float(), lambda m, h: h),
    "half and back": (lambda m, h: h.half().to(torch.float32), lambda m, h: h),
    "dtype of a configuration": (lambda m, h: h.to(m.dtype_of_config), lambda m, h: h),
    "type": (lambda m, h: h.type(torch.FloatTensor).tanh(), lambda m, h: h.tanh()),
    "softmax": (
        lambda m, h: F.softmax(h, -1, dtype=torch.float32).to(h.dtype),
        lambda m, h: h.softmax(-1),
    ),
    "sum": (lambda m, h: h / h.sum(dtype=torch.float32), lambda m, h: h / h.sum()),
    "zeros": (
        lambda m, h: h + torch.zeros(WIDTH) + torch.full((1,), 0.1),
        lambda m, h: h + torch.tensor(0.1, dtype=torch.float64),
    ),
    "whole numbers": (
        lambda m, h: h * (torch.arange(1, WIDTH + 1) / 7),
        lambda m, h: h * (torch.arange(1, WIDTH + 1).double() / 7),
    ),
    "steps": (
        lambda m, h: h * torch.linspace(0, 1, WIDTH),
        lambda m, h: h * torch.linspace(0, 1, WIDTH, dtype=torch.float64),
    ),
    "constant": (lambda m, h: h @ m.constant[0], lambda m, h: h @ m.constant[0].double()),
    "constant from outside": (lambda m, h: h @ OUTSIDE[0], lambda m, h: h @ OUTSIDE[0].double()),
    "hidden state": (
        lambda m, h: m.rnn(h[:, None], torch.zeros(1, len(h), WIDTH))[0][:, 0],
        lambda m, h: m.rnn.double()(h[:, None], torch.zeros(1, len(h), WIDTH).double())[0][:, 0],
    ),
    "hidden state in an attribute": (
        lambda m, h: m.rnn(h[:, None], m.state["h"])[0][:, 0],
        lambda m, h: m.rnn.double()(h[:, None], m.state["h"].double())[0][:, 0],
    ),
    "autocast": (
        lambda m, h: autocast_product(h, m.constant[0]),
        lambda m, h: h @ m.constant[0].double(),
    ),
    "complex": (
        lambda m, h: (torch.fft.fft(h).to(torch.complex64) @ m.mix).abs(),
        lambda m, h: (torch.fft.fft(h) @ m.mix.to(torch.complex128)).abs(),
    ),
    "in place": (
        lambda m, h: torch.empty(h.shape, dtype=torch.float32).copy_(h).mul_(2),
        lambda m, h: 2 * h,
    ),
    "function": (lambda m, h: Rounded.apply(h), lambda m, h: h.square()),
    "checkpoint": (
        lambda m, h: checkpoint(lambda x: x.float().tanh(), h, use_reentrant=False),
        lambda m, h: h.tanh(),
    ),
    "vmap": (
        lambda m, h: torch.vmap(lambda x: x.float().softmax(-1))(h),
        lambda m, h: h.softmax(-1),
    ),
    "sparse": (
        lambda m, h: torch.sparse.mm(m.constant[0].to_sparse(), h.mT).mT,
        lambda m, h: h @ m.constant[0].double().mT,
    ),
}  # fmt: skip


def autocast_product(x, y):
    with torch.autocast("cpu", torch.bfloat16):
        return (x @ y).float()


class Casting(LightningModule):
    """A net with one of the parts, and class weights made in the step."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.part = part
        self.dtype_of_config = torch.float32
        self.read, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.rnn = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.mix = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.complex64))
        self.constant = [torch.randn(WIDTH, WIDTH)]
        self.state = {"h": torch.randn(1, N, WIDTH)}

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.head(self.part(self, self.read(x)))
        return F.cross_entropy(logits.float(), y, weight=torch.tensor([1.0, 2.0, 4.0]))


def batch(n=N):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.arange(n) % CLASSES


def written_out(module, part, x, y):
    """The gradient at the first layer's output, in float64 throughout."""
    read, head = ((w.weight.double(), w.bias.double()) for w in (module.read, module.head))
    h = F.linear(x.double(), *read).detach().requires_grad_()
    weight = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    loss = F.cross_entropy(F.linear(part(module, h), *head), y, weight=weight)
    return torch.autograd.grad(loss, h)[0]


@pytest.mark.parametrize("name", PARTS)
def test_the_gradient_is_that_of_float64_throughout(name):
    part, exact = PARTS[name]
    module, (x, y) = Casting(part).eval(), batch()
    with double_precision(module) as mode:
        found = Chunk(module, (x.double(), y)).gradients(POINTS)[POINTS[0]][1]
    assert found.dtype is torch.float64
    assert mode.share_below == 0 < mode.count
    assert {p.dtype for p in module.parameters()} == {torch.float32, torch.complex64}
    assert module.state["h"].dtype is module.constant[0].dtype is torch.float32
    torch.testing.assert_close(found, written_out(module, exact, x, y), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "draw",
    [
        lambda h: h * torch.rand_like(h),
        lambda h: h * torch.randn(WIDTH),
        lambda h: h + torch.empty_like(h).normal_(),
        lambda h: F.dropout(h),
        lambda h: h * torch.bernoulli(torch.full_like(h, 0.3)),
    ],
)
def test_random_numbers_are_those_of_the_lower_precision(draw):
    module = Casting(lambda m, h: draw(h)).eval()
    gradients = Chunk(module, batch()).gradients(POINTS)
    reference = DoubleReference(module).compare(Chunk(module, batch()), gradients)
    assert float(reference.cosines[0].min()) > 0.999999
    assert reference.share_below == 0


@pytest.mark.parametrize(
    "part",
    [
        lambda m, h: h + OUTSIDE[1].detach_().copy_(h),
        lambda m, h: h * (1 + (h.view(torch.int32) & 1)),
    ],
    ids=["written into a tensor from outside", "bits"],
)
def test_what_stays_below_float64_is_counted(part):
    module = Casting(part).eval()
    gradients = Chunk(module, batch()).gradients(POINTS)
    assert 0 < DoubleReference(module).compare(Chunk(module, batch()), gradients).share_below < 0.5


class Saturated(LightningModule):
    """Softmax probabilities below the rounding of float32, of logits that the loss casts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.read, self.head = nn.Linear(6, 16), nn.Linear(16, 5)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(40 * self.head(self.read(x).tanh()).float(), y)


def test_rounding_that_both_passes_would_share_is_seen():
    module, x = (
        Saturated().eval(),
        2 * torch.randn(64, 6, generator=torch.Generator().manual_seed(0)),
    )
    with torch.no_grad():
        y = module.head(module.read(x).tanh()).argmax(1)
    gradients = Chunk(module, (x, y)).gradients(POINTS)
    found = DoubleReference(module).compare(Chunk(module, (x, y)), gradients)
    weights = [p.detach().double() for p in module.parameters()]
    h = F.linear(x.double(), *weights[:2]).requires_grad_()
    loss = F.cross_entropy(40 * F.linear(h.tanh(), *weights[2:]), y)
    (exact,) = torch.autograd.grad(loss, h)
    own = gradients[POINTS[0]][1].double()
    truth = (own * exact).sum(1) / own.norm(dim=1) / exact.norm(dim=1)
    torch.testing.assert_close(found.cosines[0], truth, rtol=1e-9, atol=1e-9)
    assert truth.min() < 0.9  # most of that sample's gradient is rounding
    assert found.share_below == 0


def test_what_has_no_float64_is_said_once_with_its_name(monkeypatch):
    lines = []
    monkeypatch.setattr("lit_credit.callbacks.credit.reference.rank_zero_info", lines.append)

    class Single(nn.Module):
        def forward(self, x):
            if x.dtype is not torch.float32:
                raise TypeError("float32 only.\nAnd a second line.")
            return x

    module = Casting(lambda m, h: m.single(h)).eval()
    module.single = Single()
    reference = DoubleReference(ReferenceValidity())
    for _ in range(2):
        gradients = Chunk(module, batch()).gradients(POINTS)
        found = reference.compare(Chunk(module, batch()), gradients)
        assert found.cosines[0].isnan().all()
        assert found.cosines[0].shape == (N,)
        assert math.isnan(found.share_below)
    assert lines == [
        "ReferenceValidity: the float64 reference is n/a, because 'single' does not run in "
        "float64: TypeError: float32 only."
    ]
    assert {p.dtype for p in module.parameters()} == {torch.float32, torch.complex64}


class LanguageModel(LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return self.net(input_ids=batch, labels=batch).loss


@pytest.mark.parametrize("name", ["Llama", "Mixtral"])
def test_nets_of_hugging_face_are_float64_or_not_applicable(name, monkeypatch):
    transformers = pytest.importorskip("transformers")
    lines = []
    monkeypatch.setattr("lit_credit.callbacks.credit.reference.rank_zero_info", lines.append)
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8,
    )
    module = LanguageModel(getattr(transformers, f"{name}ForCausalLM")(config)).eval()
    tokens, points = torch.arange(12).view(2, 6), [Point("net.model.layers.0", "input")]
    gradients = Chunk(module, tokens).gradients(points)
    found = DoubleReference(module).compare(Chunk(module, tokens), gradients)
    if lines:  # whether the experts run as a grouped product depends on the version
        assert "mlp.experts' does not run in float64 (aten._grouped_mm" in lines[0]
        assert found.cosines[0].isnan().all()
    else:
        assert found.share_below == 0
        assert float(found.cosines[0].min()) > 0.9999
    assert name == "Mixtral" or not lines


@pytest.mark.parametrize("fails", [False, True])
def test_double_precision_gives_the_same_memory_back(fails):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].weight.grad = torch.ones(2, 2)
    tensors = [*net.parameters(), *net.buffers()]
    before = [(id(t), t.data_ptr(), t.dtype) for t in tensors]
    values = [t.detach().clone() for t in tensors]
    try:
        with double_precision(net):
            assert net(torch.ones(2, 2, dtype=torch.float64)).dtype is torch.float64
            if fails:
                raise Interrupted
    except Interrupted:
        pass
    tensors = [*net.parameters(), *net.buffers()]
    assert [(id(t), t.data_ptr(), t.dtype) for t in tensors] == before
    # Running statistics were updated in the copies.
    assert all(map(torch.equal, values[:-1], tensors[:-1]))
    assert net[0].weight.grad.dtype is torch.float32

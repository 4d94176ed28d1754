"""ResidualMLP and its gradients written out in float64: slow, obvious, and nothing of ours."""

import torch
from lightning.pytorch import seed_everything
from torch.nn import functional as F

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.models import ResidualMLP
from lit_credit.tasks import Classification
from tests.support import trainer

N, DEPTH, WIDTH, FEATURES, CLASSES = 24, 3, 10, 12, 4


def batch(n=N):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, FEATURES, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def make(kind, **kwargs):
    """A rule on a net whose blocks matter, and its parameters in float64."""
    seed_everything(7, verbose=False)
    net = ResidualMLP(FEATURES, WIDTH, CLASSES, depth=DEPTH, w2_std=0.3)
    module = kind(net, Classification(CLASSES), **kwargs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def parameters(module):
    return {n: p.detach().double().requires_grad_() for n, p in module.net.named_parameters()}


def measured(callback, module, data):
    """The callback's values on a module that is not being trained."""
    module.eval()
    callback.prepare(trainer(None, logger=False), module)
    return callback.measure(module, [Chunk(module, data)])


def linear(h, p, name, feedback):
    """Exact, or with the error sent back through another matrix (out, in)."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    if feedback is None:
        return h @ weight.T + bias
    straight = h.detach() @ weight.T + bias
    back = h @ feedback[name].double().T
    return straight + back - back.detach()


def run(p, x, feedback=None):
    """The stream h_0 .. h_L, what each unit adds to it (h_0 first), and the logits."""
    h = linear(x.double(), p, "embed", feedback)
    stream, added = [h], [h]
    for index in range(DEPTH):
        name = f"blocks.{index}"
        u = F.layer_norm(h, (WIDTH,), p[f"{name}.norm.weight"], p[f"{name}.norm.bias"])
        u = linear(F.gelu(linear(u, p, f"{name}.w1", feedback)), p, f"{name}.w2", feedback)
        h = h + u
        stream.append(h)
        added.append(u)
    u = F.layer_norm(h, (WIDTH,), p["out_ln.weight"], p["out_ln.bias"])
    return stream, added, linear(u, p, "out_head", feedback)


def cosine(a, b):
    """One cosine a row, in a loop."""
    found = []
    for u, v in zip(a.double().flatten(1), b.double().flatten(1), strict=True):
        found.append(float((u * v).sum()) / float(u.norm()) / float(v.norm()))
    return torch.tensor(found, dtype=torch.float64)

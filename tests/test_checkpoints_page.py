"""docs/checkpoints.md: every block of Python runs."""

import ast
import math
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lit_credit import diagnose
from lit_credit.callbacks import ResidualNorms
from lit_credit.studies.addition import MicroAdder

PAGE = Path("docs/checkpoints.md").absolute()
NETS = {
    "57p": {"tie_ffn": True},
    "67p": {},
    "74p": {"qk_width": 5, "positions": "learned"},
}


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def shown(code, names):
    """Run a cell, and return its last expression, which a notebook shows."""
    *body, last = ast.parse(code).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def converter():
    names = {"torch": torch}
    exec(next(block for block in blocks(PAGE) if "def converted" in block), names)
    return names["converted"]


def public_weights(kind):
    """Random weights under the names, and in the shapes, of the public checkpoints of a size."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    gain, learned, width = draw(5), kind == "74p", 5 if kind == "74p" else 4
    found = {
        "tok_arc_A": draw(),
        "tok_arc_start": draw(),
        "tok_arc_stride": draw(),
        "special_pos_equals": draw(1, 3),
        "z_hi_pos": draw(1, 3),
        "spiral_amp": draw() if learned else torch.tensor(3.5),
        "spiral_phase": draw() if learned else torch.tensor(0.0),
        "spiral_slope": draw() if learned else torch.tensor(0.15),
        "spiral_offset": draw() if learned else torch.tensor(0.0),
        "_plus_pos": torch.zeros(1, 3),
        "_eos_pos": torch.zeros(1, 3),
        "head_proj.weight": draw(2, 5),
    }
    inner = {
        "attn.q_phase_angle": draw(1),
        "attn.causal_mask": torch.ones(1, 1, 34, 34).tril(),
        "attn.q_proj.weight": draw(width, 3),
        "attn.out_proj.A": draw(5, 1),
        "attn.out_proj.B": draw(1, 5),
        "ffn.fc1.weight": draw(2, 5),
    }
    if kind == "57p":  # saved by a later version, whose parts are not nested
        norms = dict.fromkeys(("norm1.weight", "norm2.weight", "norm_f.weight"), gain)
        return {**found, **{n.partition(".")[2]: v for n, v in inner.items()}, **norms}
    norms = dict.fromkeys(("blocks.0.ln1.weight", "blocks.0.ln2.weight", "ln_f.weight"), gain)
    inner["ffn.fc2.weight"] = draw(5, 2)
    arc = {"tok_arc_B": found["tok_arc_A"]}
    return {**found, **{f"blocks.0.{n}": v for n, v in inner.items()}, **norms, **arc}


def public_logits(weights, tokens):
    """The pass of the public net, written anew from its description."""
    w = {name.split(".", 3)[-1] if "blocks" in name else name: v for name, v in weights.items()}
    w = {name.removeprefix("attn.").removeprefix("ffn."): value for name, value in w.items()}
    gain = weights.get("ln_f.weight", weights.get("norm_f.weight"))
    head, out = w["head_proj.weight"], w["out_proj.A"] @ w["out_proj.B"]
    angle = w["tok_arc_start"] + w["tok_arc_stride"] * torch.arange(10)
    table = w["tok_arc_A"] * torch.stack([angle.cos(), angle.sin()], 1)
    place = torch.zeros(33, 3)
    for i in range(10):
        turn = 2 * math.pi * i / 10 + w["spiral_phase"]
        x, y = w["spiral_amp"] * turn.cos(), w["spiral_amp"] * turn.sin()
        for start in (0, 11, 22):
            place[start + i] = torch.stack([x, y, w["spiral_slope"] * i + w["spiral_offset"]])
    place[21], place[32] = w["special_pos_equals"][0], w["z_hi_pos"][0]

    def normed(h):
        return h / (h.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain

    h = torch.cat([table[tokens], place.expand(len(tokens), -1, -1)], -1)
    k = normed(h)[..., 2:] @ w["q_proj.weight"].T
    even = k.shape[-1] // 2 * 2
    turned = torch.view_as_complex(k[..., :even].unflatten(-1, (-1, 2)).contiguous())
    turned = torch.view_as_real(turned * torch.exp(1j * w["q_phase_angle"])).flatten(-2)
    q = torch.cat([turned, k[..., even:]], -1)
    mask = torch.full((33, 33), -math.inf).triu(1)
    attention = (q @ k.mT / k.shape[-1] ** 0.5 + mask).softmax(-1)
    h = h + attention @ (normed(h)[..., :2] @ head) @ out
    second = w["fc2.weight"].T if "fc2.weight" in w else head
    h = h + F.gelu(normed(h) @ w["fc1.weight"].T) @ second
    return normed(h) @ head.T @ table.T


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*holds the same weights as the checkpoint before it")
@pytest.mark.filterwarnings("ignore:CircuitMatching. heads .*there are no data")
def test_every_block_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = import_module("examples.diagnose_checkpoints")
    names = {**vars(example), "net": example.Net()}
    names["x"], names["y"] = (part[:128] for part in example.digits())
    example.train(names["net"], tmp_path / "ckpts", 200)
    public = {"step": 46000, "model_state_dict": public_weights("67p")}
    torch.save(public, "checkpoint_67p.pt")
    first, *others = blocks(PAGE)
    html = shown(first, names)._repr_html_()
    assert html.count("<img") == 2
    assert "2 checkpoints, steps 0 to 200" in html
    for block in others:
        exec(block, names)
    assert {p.name for p in Path("tables").iterdir()} == {
        "residual_norms.csv",
        "gradient_norms.csv",
    }
    assert Path("diagnosis/figures/residual_norms.png").is_file()
    assert Path("norms.png").is_file()


@pytest.mark.parametrize("kind", NETS)
def test_the_converter_gives_the_logits_of_the_public_net(kind):
    theirs = public_weights(kind)
    net = MicroAdder(norm="shared", **NETS[kind])
    own = {name: value.clone() for name, value in net.state_dict().items()}
    tokens = torch.randint(10, (6, 33), generator=torch.Generator().manual_seed(1))
    logits = []

    class Seen(ResidualNorms):
        def update(self, chunk):
            super().update(chunk)
            logits.append(net(tokens))

    diagnose(net, Seen(), tokens, checkpoints=[(1, converter()(theirs))])
    expected = public_logits(theirs, tokens)[:, -12:]
    torch.testing.assert_close(logits[-1][:, -12:], expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())


def test_a_piece_that_is_missing_is_named():
    theirs = public_weights("67p")
    del theirs["blocks.0.ffn.fc1.weight"]
    weights = converter()(theirs)
    with pytest.raises(ValueError, match=r"1 missing \(block\.ffn\.fc1\.weight\)"):
        diagnose(
            MicroAdder(norm="shared"),
            ResidualNorms(),
            torch.zeros(1, 33).long(),
            checkpoints=[(1, weights)],
        )

"""Circuits are taken of heads that are proved to be those of one stream."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from lit_credit.callbacks import CircuitMatching, ExactDivergence, HeadAttribution
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.datamodules import TensorLoader
from lit_credit.models import RotaryTransformer
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import read_history
from lit_credit.studies.ngram import AttentionOnly
from lit_credit.tasks import NextToken
from tests import support
from tests.callbacks.heads.test_attribution_proof import (
    VOCAB,
    WIDTH,
    Block,
    Net,
    Trained,
    encoder,
    hugging_face,
    perturbed,
    tokens,
)
from tests.inspect.attention import head_nets
from tests.inspect.attention import wrong_heads as wrong


def proved(module, data=None, **options):
    callback = CircuitMatching(**options)
    callback.prepare(None, module)
    given = (tokens(), tokens(1)) if data is None else data
    return callback.prove(Chunk(module, given)), callback


def folded(found):
    return [name for name in found if name.startswith("gain of")]


NETS = {
    "pre-norm": (Net, 2),
    "torch's encoder": (lambda: encoder(True), 2),
    "torch's encoder, post-norm": (lambda: encoder(False), 0),
    "GPT-2": (head_nets.gpt2, 2),
    "Llama": (lambda: hugging_face(LlamaConfig, LlamaForCausalLM), 2),
    "Mixtral": (lambda: hugging_face(MixtralConfig, MixtralForCausalLM, num_local_experts=2), 2),
    "BERT": (lambda: hugging_face(BertConfig, BertForMaskedLM), 0),
    "ours": (head_nets.our_gpt, 2),
    "ours, rotary": (lambda: RotaryTransformer(VOCAB, WIDTH, 3, 2, mlp=8), 3),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("make", NETS)
def test_right_circuits_are_proved_and_folded_gains_named(make):
    torch.manual_seed(0)
    make, gains = NETS[make]
    found, _ = proved(perturbed(Trained(make())))
    assert max(found.values()) < 1e-4
    assert len(folded(found)) == gains
    assert "all heads write to and read from one stream" in found
    unfolded, _ = proved(perturbed(Trained(make())), fold_norm=False)
    assert not folded(unfolded)


class Through(nn.Module):
    """What attention writes goes through it before it comes to the stream."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


_DIRECT = "the last attention reads directly what the others write, but for a factor"


@pytest.mark.parametrize(
    ("through", "direct"),
    [
        (lambda y: y, True),
        (lambda y: -0.3 * y, True),
        (lambda y: y * torch.linspace(0.1, 2, WIDTH), False),  # LayerScale
        (lambda y: F.layer_norm(y, (WIDTH,)), False),  # sandwich norms
        (lambda y: F.gelu(y), False),
        (lambda y: y.roll(1, 1), False),
    ],
)
def test_what_lies_between_writing_and_reading_heads_is_told(through, direct):
    torch.manual_seed(0)
    found, _ = proved(perturbed(Trained(Net(lambda: Block(behind=Through(through))))))
    assert (found.get(_DIRECT, 1.0) < 1e-3) == direct
    assert any(n.startswith(f"not proved: {_DIRECT}") for n in found) == (not direct)


def test_mixtrals_gains_are_folded_as_llamas_are():
    values = []
    for config, model in ((LlamaConfig, LlamaForCausalLM), (MixtralConfig, MixtralForCausalLM)):
        torch.manual_seed(0)
        module = Trained(hugging_face(config, model))
        for layer in module.net.model.layers:
            torch.manual_seed(1)
            for parameter in layer.self_attn.parameters():
                nn.init.normal_(parameter)
            nn.init.uniform_(layer.input_layernorm.weight, 0.5, 2.0)
        found, callback = proved(module.eval())
        assert len(folded(found)) == 2
        values.append(callback.measure(module)["z/best"])
        (name,) = (n for n in found if "layers.1." in n)
        assert name == (
            "gain of 'net.model.layers.1.input_layernorm' is folded into "
            "'net.model.layers.1.self_attn'"
        )
    assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.few(5)
@pytest.mark.parametrize("kind", [*wrong.SCORES, *wrong.OUTPUTS])
def test_wrong_structures_are_refused(kind):
    def make():
        block = Net().blocks[0]
        block.attention = kind()
        return block

    torch.manual_seed(0)
    with pytest.raises(MisconfigurationException, match=r"CircuitMatching: the heads of 'net\.bl"):
        proved(Trained(Net(make)).eval())


def test_capped_scores_of_gemma_2_are_refused_before_they_are_large():
    torch.manual_seed(0)
    net = hugging_face(
        Gemma2Config, Gemma2ForCausalLM, head_dim=4, attn_implementation="eager", sliding_window=8
    )
    with pytest.raises(MisconfigurationException, match="its scores are not"):
        proved(Trained(net).eval())


def clip():
    sizes = {"hidden_size": WIDTH, "intermediate_size": 12, "num_attention_heads": 4}
    sizes |= {"num_hidden_layers": 2, "projection_dim": 8}
    text = {**sizes, "vocab_size": VOCAB, "max_position_embeddings": 8, "eos_token_id": 1}
    vision = {**sizes, "image_size": 4, "patch_size": 2}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision))


class Contrastive(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = clip()

    def training_step(self, batch, batch_idx):
        return self.net(batch[0], batch[1], return_loss=True).loss


def test_two_towers_are_two_streams():
    torch.manual_seed(0)
    module, data = Contrastive().eval(), (tokens(), torch.randn(6, 3, 4, 4))
    towers = r"different streams.*net\.vision_model.*net\.text_model.*`units`"
    with pytest.raises(MisconfigurationException, match=towers):
        proved(module, data)
    for tower in ("text", "vision"):
        found, _ = proved(module, data, units=[f"net.{tower}_model.encoder.layers.*.self_attn"])
        assert max(found.values()) < 1e-4
        assert len(folded(found)) == 2


def test_an_encoder_and_a_decoder_are_two_streams_whatever_they_are_called():
    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = {"encoder_layers": 2, "decoder_layers": 2, "d_model": WIDTH}
            heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
            symbols = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
            net = BartForConditionalGeneration(
                BartConfig(vocab_size=VOCAB, **sizes, **heads, **symbols, decoder_start_token_id=0)
            )
            self.embed, self.head = net.model.shared, net.lm_head
            self.left, self.right = net.model.encoder, net.model.decoder

        def forward(self, x):
            memory = self.left(x).last_hidden_state
            return self.head(self.right(x, encoder_hidden_states=memory).last_hidden_state)

    torch.manual_seed(0)
    module = Trained(Renamed()).eval()
    with pytest.raises(MisconfigurationException, match=r"streams.*net\.left.*net\.right"):
        proved(module)
    found, _ = proved(module, units=["net.right.layers.*.self_attn"])
    assert max(found.values()) < 1e-4


def test_heads_side_by_side_are_no_layers():
    torch.manual_seed(0)
    module = Trained(AttentionOnly(VOCAB, 6, 2, 2, separate_heads=True)).eval()
    data = tokens()[:, :2], tokens()[:, 2]
    with pytest.raises(MisconfigurationException, match="one does not read what another wrote"):
        proved(module, data)
    names = [f"net.blocks.{i}.attention.0" for i in (0, 1)]
    assert max(proved(module, data, units=names)[0].values()) < 1e-4


def test_silent_heads_are_not_side_by_side():
    torch.manual_seed(0)
    module = Trained(AttentionOnly(VOCAB, 6, 2, 2, silent_heads=True)).eval()
    data = tokens()[:, :2], tokens()[:, 2]
    assert max(proved(module, data)[0].values()) < 1e-4


def test_layers_registered_in_another_order_are_refused():
    class Backwards(Net):
        def forward(self, x):
            h = self.embed(x)
            for block in reversed(self.blocks):
                h = block(h)
            return self.head(self.final(h))

    torch.manual_seed(0)
    with pytest.raises(MisconfigurationException, match=r"runs in another order.*blocks\.1"):
        proved(Trained(Backwards()).eval())


# In a run


def rows(folder, callback, module, name="circuit_matching", **options):
    support.fit(folder, module, callback, max_epochs=1, **options)
    return read_history(folder / f"{name}.jsonl")


@pytest.mark.parametrize("rule", [BP, DFA])
def test_a_run_has_its_proof_in_the_first_row(rule, tmp_path):
    found = rows(tmp_path, CircuitMatching(figure=False), support.rule(rule, support.SymbolNet))
    assert max(found[0]["proved"].values()) < 1e-4
    assert "proved" not in found[-1]


class Manual(support.Foreign):
    def __init__(self):
        super().__init__(support.SymbolNet)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.model(batch[0]), batch[1]))
        optimizer.step()


def test_what_could_not_be_proved_is_said(tmp_path):
    with pytest.warns(UserWarning, match="not proved to be those of Manual"):
        found = rows(tmp_path, CircuitMatching(figure=False), Manual())
    (statement,) = found[0]["proved"]
    assert statement.startswith("not proved")
    assert math.isnan(found[0]["proved"][statement])
    assert "circuits/z/best" in found[0]["values"]


class Fitted(Trained):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", [CircuitMatching, HeadAttribution])
def test_a_refusal_comes_before_the_first_step(kind, tmp_path):
    def make():
        block = Net().blocks[0]
        block.attention = wrong.GatedAttention()
        return block

    module = Fitted(Net(make))
    before = {n: p.clone() for n, p in module.named_parameters()}
    loaders = TensorLoader((tokens(), tokens(1)), batch_size=3, shuffle=False), None
    with pytest.raises(MisconfigurationException, match=f"{kind.__name__}: the heads of 'net"):
        support.fit(tmp_path, module, kind(figure=False), max_epochs=1, loaders=loaders)
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())


def test_the_bound_is_left_out_where_the_heads_are_not_those_of_the_net(tmp_path):
    class One(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.stack = head_nets.Stack(kind())
            self.head = nn.Linear(WIDTH, support.CLASSES)

        def forward(self, x):
            return self.head(self.stack(x.long() % VOCAB)[:, -1])

    data = tokens()[:, :3], tokens(1)[:, 0] % support.CLASSES
    symbols = TensorLoader(data, batch_size=3, shuffle=False)
    for kind, right in ((wrong.FusedAttention, True), (wrong.GatedAttention, False)):
        torch.manual_seed(0)
        module = support.Foreign(lambda kind=kind: One(kind))
        folder = tmp_path / kind.__name__
        found = rows(
            folder,
            ExactDivergence(figure=False),
            module,
            "exact_divergence",
            loaders=(symbols, None),
        )
        assert ("divergence/memorized_bound" in found[0]["values"]) == right
        assert any(name.startswith("not proved") for name in found[0]["proved"]) != right


def test_a_net_of_the_rules_keeps_its_numbers():
    torch.manual_seed(0)
    module = BP(RotaryTransformer(VOCAB, WIDTH, 2, 2), NextToken()).eval()
    for block in module.net.blocks:
        nn.init.uniform_(block.attention.norm.weight, 0.5, 2.0)
    plain = CircuitMatching(ranks=[3])
    plain.prepare(None, module)
    _, callback = proved(module, ranks=[3])
    assert callback.measure(module) == plain.measure(module)

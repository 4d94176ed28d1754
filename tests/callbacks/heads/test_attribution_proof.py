"""What heads are said to add to the logits is what they add, or the net is refused."""

import os

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CohereConfig,
    CohereForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from lit_credit.callbacks import HeadAttribution
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.models import RotaryTransformer
from lit_credit.rules import BP, DFA, FA
from lit_credit.runs.history import read_history
from lit_credit.studies.ngram import AttentionOnly
from lit_credit.tasks import Classification, NextToken
from tests import support
from tests.inspect.attention import head_nets

N, T, WIDTH, VOCAB = 6, 5, head_nets.WIDTH, head_nets.VOCAB


def tokens(seed=0):
    return torch.randint(VOCAB, (N, T), generator=torch.Generator().manual_seed(seed))


class Trained(LightningModule):
    """Any net of logits (N, T, V) or (N, V)."""

    def __init__(self, net, loss=F.cross_entropy):
        super().__init__()
        self.net = net
        self.loss = loss

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        logits = getattr(logits, "logits", logits)
        return self.loss(logits.flatten(0, -2), y.flatten())


def perturbed(module):
    """Every parameter matters: gains and biases too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def proved(module, data, unembedding=None, position=-1):
    callback = HeadAttribution(unembedding=unembedding, position=position)
    callback.prepare(support.trainer(None, logger=False), module)
    return callback.prove(Chunk(module, data))


def hugging_face(config, model, **options):
    sizes = {"hidden_size": WIDTH, "intermediate_size": 12, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "vocab_size": VOCAB, "max_position_embeddings": 8}
    if config is not BertConfig:
        heads |= {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return model(config(**sizes, **heads, **options))


class Block(nn.Module):
    """Pre-norm; what attention and MLP add passes ``scale`` first."""

    def __init__(self, scale=None, norm=nn.LayerNorm, behind=None):
        super().__init__()
        self.attention, self.norm = head_nets.FusedAttention(), norm(WIDTH)
        self.mlp = nn.Sequential(norm(WIDTH), nn.Linear(WIDTH, 9), nn.GELU(), nn.Linear(9, WIDTH))
        self.scale, self.behind = scale, behind or nn.Identity()

    def forward(self, x):
        added = self.behind(self.attention(self.norm(x)))
        x = x + (added if self.scale is None else self.scale * added)
        return x + self.mlp(x)


class Net(nn.Module):
    def __init__(self, make=Block, final=nn.LayerNorm, pool=None):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.Sequential(make(), make())
        self.final, self.pool = final(WIDTH), pool
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, x):
        h = self.final(self.blocks(self.embed(x)))
        return self.head(h if self.pool is None else self.pool(h))


class PositionsFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = head_nets.Embedded(norm_first=True, batch_first=False)

    def forward(self, x):
        return self.encoder(x.mT).transpose(0, 1)


def encoder(norm_first):
    net = head_nets.Embedded(norm_first, True)
    return nn.Sequential(net, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCAB))


def vision_transformer():
    net = VisionTransformer(
        image_size=4, patch_size=2, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12
    )
    nn.init.normal_(net.heads.head.weight)
    return net


RIGHT = {
    "pre-norm": Net,
    "no final norm": lambda: Net(final=lambda _: nn.Identity()),
    "RMSNorm": lambda: Net(lambda: Block(norm=nn.RMSNorm), nn.RMSNorm),
    "torch's encoder, pre-norm": lambda: encoder(True),
    "torch's encoder, positions first": lambda: nn.Sequential(
        PositionsFirst(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCAB)
    ),
    "GPT-2": head_nets.gpt2,
    "Llama": lambda: hugging_face(LlamaConfig, LlamaForCausalLM),
    "Mistral": lambda: hugging_face(MistralConfig, MistralForCausalLM),
    "Mixtral": lambda: hugging_face(MixtralConfig, MixtralForCausalLM, num_local_experts=2),
    "Gemma": lambda: hugging_face(GemmaConfig, GemmaForCausalLM, head_dim=4),
    "Cohere": lambda: hugging_face(CohereConfig, CohereForCausalLM),
    "ours": head_nets.our_gpt,
    "ours, rotary": lambda: RotaryTransformer(VOCAB, WIDTH, 2, 2, mlp=8),
}


@pytest.mark.parametrize("make", RIGHT)
def test_heads_of_pre_norm_nets_arrive_as_they_are(make):
    torch.manual_seed(0)
    module = perturbed(Trained(RIGHT[make]()))
    found = proved(module, (tokens(), tokens(1)))
    assert len(found) >= 3
    assert max(found.values()) < 1e-4
    (stream,) = (name for name in found if "arrives as it is in front of" in name)
    assert ("'net" in stream) == (found[stream] < 1e-5)
    times = " .0625 times".replace(" .", " 0.") if make == "Cohere" else ""
    assert any(name.startswith(f"the loss is a cross-entropy of{times}") for name in found)


@pytest.mark.parametrize("rule", [BP, FA, DFA])
def test_heads_of_our_rules_arrive_as_they_are(rule):
    torch.manual_seed(0)
    module = rule(head_nets.our_gpt(), NextToken()).eval()
    assert max(proved(module, (tokens(), tokens(1))).values()) < 1e-4
    for options in ({"heads": 3}, {"depth": 2, "heads": 2, "separate_heads": True, "mlp_width": 5}):
        net = AttentionOnly(VOCAB, 6, **options)
        module = rule(net, Classification(VOCAB)).eval()
        assert max(proved(module, (tokens()[:, :2], tokens()[:, 2])).values()) < 1e-4


def test_a_class_token_and_half_precision():
    torch.manual_seed(0)
    module = Trained(vision_transformer())
    data = torch.randn(N, 3, 4, 4), tokens()[:, 0]
    assert max(proved(perturbed(module), data, position=0).values()) < 1e-4
    found = proved(Trained(Net()).bfloat16().eval(), (tokens(), tokens(1)))
    assert max(found.values()) < 0.03


class Gate(nn.Module):
    """ReZero."""

    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return self.alpha * x


class ContentGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.gate(x).sigmoid() * x


class LayerScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(WIDTH))

    def forward(self, x):
        return x * self.gamma


class TanhNorm(nn.Module):
    """A norm that nobody knows."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (2 * x).tanh()


def test_an_unknown_norm_is_refused():
    torch.manual_seed(0)
    with pytest.raises(MisconfigurationException, match=r"TanhNorm.*no LayerNorm and no RMSNorm"):
        proved(perturbed(Trained(Net(final=TanhNorm))), (tokens(), tokens(1)))

    class Dynamic(TanhNorm):
        """By a name that says nothing."""

    Dynamic.__name__ = "Dynamic"
    with pytest.raises(MisconfigurationException, match="does not arrive as it is in front of the"):
        proved(perturbed(Trained(Net(final=Dynamic))), (tokens(), tokens(1)))


class WithoutStream(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = head_nets.FusedAttention()

    def forward(self, x):
        return self.attention(x)


def functional_norm(x):
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)


class PostNorm(Block):
    """With a norm that is no module."""

    def forward(self, x):
        return functional_norm(x + self.attention(x))


def behind(kind):
    return lambda: Net(lambda: Block(behind=kind()))


WRONG = {
    "torch's encoder, post-norm": lambda: encoder(False),
    "post-norm by a function": lambda: Net(PostNorm),
    "BERT": lambda: hugging_face(BertConfig, BertForMaskedLM),
    "LayerScale": behind(LayerScale),
    "ReZero": behind(Gate),
    "a gate": behind(ContentGate),
    "a norm behind": behind(lambda: nn.LayerNorm(WIDTH)),
    "a projection behind": behind(lambda: nn.Linear(WIDTH, WIDTH)),
    "a multiplier": lambda: Net(lambda: Block(scale=0.3)),
    "Granite": lambda: hugging_face(GraniteConfig, GraniteForCausalLM, residual_multiplier=0.3),
    "no residual path": lambda: Net(WithoutStream),
}


@pytest.mark.parametrize("make", WRONG)
def test_what_does_not_arrive_is_refused_by_name(make):
    torch.manual_seed(0)
    module = perturbed(Trained(WRONG[make]()))
    unembedding = "net.cls.predictions.decoder" if make == "BERT" else None
    message = r"heads of '[\w.]*0[\w.]*' add does not arrive as it is in front of the"
    with pytest.raises(MisconfigurationException, match=message):
        proved(module, (tokens(), tokens(1)), unembedding)


@pytest.mark.parametrize("final", [nn.LayerNorm, lambda _: nn.Identity()])
@pytest.mark.parametrize("position", [-1, 0])
def test_a_pooled_stream_is_not_taken_for_one_position(final, position):
    torch.manual_seed(0)
    module = perturbed(Trained(Net(final=final, pool=lambda h: h.mean(1))))
    with pytest.raises(MisconfigurationException, match=r"does not arrive.*pooling"):
        proved(module, (tokens(), tokens()[:, 0]), position=position)


def test_heads_of_an_encoder_are_not_the_decoders():
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, WIDTH)
            options = {"batch_first": True, "norm_first": True, "dropout": 0.0}
            self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 12, **options)
            self.decoder = nn.TransformerDecoderLayer(WIDTH, 2, 12, **options)
            self.head = nn.Linear(WIDTH, VOCAB)

        def forward(self, x):
            h = self.embed(x)
            return self.head(self.decoder(h, self.encoder(h)))

    torch.manual_seed(0)
    module, data = Trained(Translator()).eval(), (tokens(), tokens(1))
    with pytest.raises(MisconfigurationException, match=r"'net\.encoder.*does not arrive"):
        proved(module, data)
    callback = HeadAttribution(units=["net.decoder.*_attn"])
    callback.prepare(support.trainer(None, logger=False), module)
    assert max(callback.prove(Chunk(module, data)).values()) < 1e-4


class TwoHeads(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.other = nn.Linear(WIDTH, VOCAB)

    def training_step(self, batch, batch_idx):
        x, y, z = batch
        h = self.net.final(self.net.blocks(self.net.embed(x)))
        first, second = (head(h).flatten(0, 1) for head in (self.net.head, self.other))
        return F.cross_entropy(first, y.flatten()) + F.cross_entropy(second, z.flatten())


def test_targets_of_another_head_are_refused():
    torch.manual_seed(0)
    module, data = TwoHeads().eval(), (tokens(), tokens(1), tokens(2))
    with pytest.raises(MisconfigurationException, match="asks 'other' for other symbols"):
        proved(module, data)
    assert max(proved(module, data, "net.head").values()) < 1e-4


class MeanOfTwoHeads(TwoHeads):
    def training_step(self, batch, batch_idx):
        x, y = batch
        h = self.net.final(self.net.blocks(self.net.embed(x)))
        logits = (self.net.head(h) + self.other(h)) / 2
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


@pytest.mark.parametrize("head", ["other", "net.head"])
def test_one_of_two_heads_whose_logits_are_averaged_is_refused(head):
    torch.manual_seed(0)
    module, data = MeanOfTwoHeads().eval(), (tokens(), tokens(1))
    with torch.no_grad():
        module.other.weight.mul_(3.0)
        module.net.head.weight.mul_(3.0)
    with pytest.raises(MisconfigurationException, match=f"logits of '{head}' alone"):
        proved(module, data, head)


def mean_square(logits, y):
    return (logits - F.one_hot(y, VOCAB)).square().mean()


def smoothed(logits, y):
    return F.cross_entropy(logits, y, label_smoothing=0.3)


@pytest.mark.parametrize("loss", [mean_square, smoothed, F.multi_margin_loss])
def test_targets_are_proved_under_other_losses(loss):
    torch.manual_seed(0)
    module = perturbed(Trained(Net(), loss))
    with torch.no_grad():
        module.net.head.weight.mul_(9.0)  # logits so large that signs alone do not tell
    assert max(proved(module, (tokens(), tokens(1))).values()) < 0.1

    def shifted(logits, y):
        return loss(logits, y.roll(1))

    with pytest.raises(MisconfigurationException, match="for other symbols"):
        proved(perturbed(Trained(Net(), shifted)), (tokens(), tokens(1)))


def test_a_loss_that_does_not_read_the_logits_is_refused():
    class Elsewhere(Trained):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            return self.net.embed.weight.square().sum()

    with pytest.raises(MisconfigurationException, match=r"does not depend on what 'net\.head'"):
        proved(Elsewhere(Net()).eval(), (tokens(), tokens(1)))


def test_a_net_that_goes_another_way_each_time_cannot_be_followed(monkeypatch):
    monkeypatch.setenv("CALLS", "0")  # state that no guard puts back

    class Restless(Net):
        def forward(self, x):
            os.environ["CALLS"] = str(int(os.environ["CALLS"]) + 1)
            h = self.blocks(self.embed(x))
            for _ in range(int(os.environ["CALLS"])):
                h = h + self.embed.weight.mean(0).tanh()
            return self.head(self.final(h))

    module = Trained(Restless()).eval()
    module.batch_loss = lambda batch: module.training_step(batch, 0)
    with pytest.raises(MisconfigurationException, match="takes another way each time"):
        proved(module, (tokens(), tokens(1)))


def test_the_first_row_of_a_run_says_what_was_proved(tmp_path):
    module = support.rule(FA, support.SymbolNet)
    support.fit(tmp_path, module, HeadAttribution(n_samples=9, figure=False), max_epochs=1)
    first, *others = read_history(tmp_path / "head_attribution.jsonl")
    assert len(first["proved"]) == 5
    assert max(first["proved"].values()) < 1e-4
    assert not any("proved" in row for row in others)

import pytest
import torch
from torch import nn

from lit_credit.inspect.attention.final_norm import norm_names
from lit_credit.inspect.attention.head_weights import find_embedding
from lit_credit.inspect.matrices import find_unembedding, read_matrices
from lit_credit.rules import BP
from lit_credit.tasks import NextToken
from tests.inspect.attention import head_nets


def test_weights_go_by_their_submodule_and_others_by_their_own_name():
    net = nn.TransformerEncoderLayer(8, 2, 16)
    found = read_matrices(net, ["*", "*.*"])
    shapes = {name: tuple(weight.shape) for name, weight in found.items()}
    assert shapes == {
        "linear1": (16, 8),
        "linear2": (8, 16),
        "self_attn.in_proj_weight": (24, 8),
        "self_attn.out_proj": (8, 8),
    }
    assert not any(weight.requires_grad for weight in found.values())
    assert found["linear1"].data_ptr() == net.linear1.weight.data_ptr()


def test_names_of_a_rule_are_those_of_its_net():
    module = BP(head_nets.our_gpt(), NextToken())
    assert list(read_matrices(module, ["head"])) == ["head"]
    assert list(read_matrices(module, ["net.head"])) == ["head"]
    assert find_unembedding(module) == find_unembedding(module, "head") == "net.head"
    assert find_embedding(module) == "net.embed.token"
    with pytest.raises(ValueError, match=r"`unembedding`: 'norm' matches nothing.*head"):
        find_unembedding(module, "norm")


def test_nets_without_any():
    assert find_unembedding(nn.Conv1d(1, 1, 1)) is None
    assert find_embedding(nn.Linear(1, 1)) is None
    with pytest.raises(ValueError, match="Choose from: none"):
        read_matrices(nn.BatchNorm1d(3), ["*"])


def test_norms_by_class_and_by_name():
    net = nn.Sequential(nn.LayerNorm(4), nn.RMSNorm(4), nn.LayerNorm((2, 4)), nn.Linear(4, 4))
    assert norm_names(net) == ["0", "1"]
    assert "model.norm" in norm_names(head_nets.llama())


def test_the_unembedding_of_hugging_face_is_last():
    assert find_unembedding(head_nets.gpt2()) == "lm_head"
    assert find_unembedding(head_nets.llama()) == "lm_head"
    tied = read_matrices(head_nets.gpt2(), ["lm_head", "transformer.wte"])
    assert torch.equal(tied["lm_head"], tied["transformer.wte"])

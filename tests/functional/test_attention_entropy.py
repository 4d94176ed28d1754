import math

import pytest
import torch

from lit_credit.functional import attention_entropy, effective_keys, is_softmax, mean_attention


def rows(shape=(2, 3, 4, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def masked(allowed):
    return rows().masked_fill(~allowed, -math.inf).softmax(-1)


CAUSAL = torch.ones(4, 5, dtype=torch.bool).tril()
PADDED = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])[:, None, None]


@pytest.mark.parametrize(
    "allowed", [CAUSAL, PADDED, CAUSAL & PADDED], ids=["causal", "pad", "both"]
)
def test_against_a_loop(allowed):
    a = masked(allowed)
    entropy, keys = attention_entropy(a, allowed), effective_keys(a, allowed)
    mean = mean_attention(a, allowed)
    for n, h in ((n, h) for n in range(2) for h in range(3)):
        seen = []
        for t in range(4):
            p = [float(x) for x in a[n, h, t] if x > 0]
            expected = -sum(x * math.log(x) for x in p)
            assert float(entropy[n, h, t]) == pytest.approx(expected, abs=1e-12)
            assert float(keys[n, h, t]) == pytest.approx(math.exp(expected))
            seen += p
        assert float(mean[n, h]) == pytest.approx(sum(seen) / len(seen))


def test_bounds_are_one_key_and_all_keys():
    a = torch.stack([torch.eye(6)[0], torch.full((6,), 1 / 6)])
    assert attention_entropy(a).tolist() == pytest.approx([0, math.log(6)])
    assert effective_keys(a).tolist() == pytest.approx([1, 6])


@pytest.mark.parametrize("value", [0.0, math.nan, 0.2])
def test_a_query_without_keys_is_undefined_and_counts_nowhere(value):
    allowed = CAUSAL.clone()
    allowed[1] = False
    a = masked(CAUSAL)
    expected = attention_entropy(a, CAUSAL)
    a[:, :, 1] = value
    entropy = attention_entropy(a, allowed)
    assert entropy[:, :, 1].isnan().all()
    assert torch.equal(entropy[:, :, [0, 2, 3]], expected[:, :, [0, 2, 3]])
    assert mean_attention(a, allowed)[0, 0].item() == pytest.approx(3 / (1 + 3 + 4))


def test_what_is_no_softmax_is_undefined():
    a = rows().sigmoid()
    for found in (attention_entropy(a), effective_keys(a), mean_attention(a)):
        assert found.isnan().all()


def test_one_row_tells_a_softmax_from_another_attention():
    a = masked(CAUSAL)
    assert is_softmax(a, CAUSAL).all()
    a[1, 2, 3, 0] += 0.01
    a[0, 0, 2, :2] += torch.tensor([-1.0, 1.0])
    a[0, 1, 1] = 0.0
    assert is_softmax(a, CAUSAL).tolist() == [[False, True, True], [True, True, False]]
    a[0, 1, 1] = math.nan
    assert not is_softmax(a, CAUSAL)[0, 1]
    without = CAUSAL.clone()
    without[1] = False
    assert is_softmax(a, without)[0, 1]


def test_nothing_allowed():
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    a = rows().softmax(-1)
    assert attention_entropy(a, nothing).isnan().all()
    assert mean_attention(a, nothing).isnan().all()


def test_half_precision_rows_pass_for_a_softmax():
    a = rows((2, 3, 4, 500)).softmax(-1)
    for dtype in (torch.float16, torch.bfloat16):
        expected = attention_entropy(a)
        torch.testing.assert_close(attention_entropy(a.to(dtype)), expected, rtol=1e-2, atol=0)

import torch

from lit_credit.functional import ov_circuit, qk_circuit, rotary_frequencies, rotary_matrix
from tests.functional.heads import randn


def test_the_circuits_are_what_a_head_does():
    w_q, w_k, w_v, w_o = randn(4, 3, 8, 4)  # three heads
    x = randn(5, 8, seed=1)
    rotation = rotary_matrix(rotary_frequencies(4), 2)
    for h in range(3):
        q, k, v = x @ w_q[h], x @ w_k[h], x @ w_v[h]
        qk, ov = qk_circuit(w_q, w_k)[h].dense(), ov_circuit(w_o, w_v)[h].dense()
        torch.testing.assert_close(x @ qk @ x.T, q @ k.T / 2)
        torch.testing.assert_close(x @ ov.T, v @ w_o[h].T)
        turned = qk_circuit(w_q, w_k, rotation)[h].dense()
        torch.testing.assert_close(x @ turned @ x.T, q @ rotation @ k.T / 2)


def test_one_circuit_for_every_distance():
    w_q, w_k = randn(2, 3, 8, 4)
    rotations = rotary_matrix(rotary_frequencies(4), torch.arange(6))[:, None]
    qk = qk_circuit(w_q, w_k, rotations)
    assert qk.shape == (6, 3, 8, 8)
    one = qk_circuit(w_q[1], w_k[1], rotations[4, 0])
    torch.testing.assert_close(qk.dense()[4, 1], one.dense())
    torch.testing.assert_close(qk.svd().s[4, 1], one.svd().s)


def test_no_graph():
    weight = torch.nn.Parameter(randn(8, 4))
    for circuit in (qk_circuit(weight, weight), ov_circuit(weight, weight)):
        assert not circuit.dense().requires_grad

"""What a measurement of `CircuitMatching` costs, beside one with dense matrices.

    OMP_NUM_THREADS=1 python benchmarks/circuit_time.py

Two layers of one head of 64 features in a stream of 64, and 24 layers of one head of 64 in a stream
of 1024, of which every pair is matched. The dense twin forms W_QK, W_OV and their product for each
pair, with a full singular value decomposition of each circuit; at 1024 it is timed on a few pairs
and heads, and scaled to all.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_credit.callbacks import CircuitMatching
from lit_credit.inspect.attention.head_weights import AttentionHeads

RANKS = [5, 10, 15, 20]


class RandomHead(nn.Module):
    """One head that was never trained."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(4, 1, width, size) / math.sqrt(width))

    def head_weights(self) -> AttentionHeads:
        """The four weights."""
        query, key, value, output = self.weights.detach()
        return AttentionHeads(query=query, key=key, value=value, output=output)


class RandomNet(nn.Module):
    """An embedding, and layers of one head."""

    def __init__(self, layers: int, width: int, size: int, symbols: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.layers = nn.ModuleList(RandomHead(width, size) for _ in range(layers))


def dense_circuits(heads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_QK and W_OV of one head, and the directions that they read and write."""
    q, k, v, o = heads.double()[:, 0]
    qk, ov = q @ k.T / math.sqrt(q.shape[1]), o @ v.T
    return qk, ov, torch.linalg.svd(qk).Vh.T, torch.linalg.svd(ov).U


def dense_pair(qk: Tensor, ov: Tensor, read: Tensor, written: Tensor, e: Tensor) -> None:
    """z, mismatch and match of one pair."""
    z = qk @ ov
    (z.diagonal().mean() - z.mean()) / z.std(correction=0)
    (e @ z @ e.T).argmax(1)
    for rank in RANKS:
        torch.linalg.svdvals(read[:, :rank].T @ written[:, :rank])


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Median over rounds, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def report(layers: int, width: int, symbols: int, rounds: int, few: int) -> None:
    """One line a way of measuring."""
    torch.manual_seed(0)
    net = RandomNet(layers, width, 64, symbols)
    callback = CircuitMatching(ranks=RANKS)
    pairs = layers * (layers - 1) // 2
    factored = seconds(lambda: callback.measure(net, None), rounds)
    e = net.embed.weight.detach().double()[: callback.n_tokens]
    weights = net.layers[0].weights.detach()
    circuits = dense_circuits(weights)
    per_head = seconds(lambda: dense_circuits(weights), few)
    per_pair = seconds(lambda: dense_pair(*circuits, e), few)
    dense = layers * per_head + pairs * per_pair
    print(f"d_model {width}, {layers} heads of 64, {pairs} pairs, {len(e)} symbols")
    print(f"  CircuitMatching, all it measures  {1000 * factored:10.1f} ms")
    print(
        f"  dense z, mismatch and match       {1000 * dense:10.1f} ms  ({dense / factored:.2g} x)"
    )


def main() -> None:
    """Both sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=1024, help="of the larger stream")
    options = parser.parse_args()
    report(2, 64, 64, 20 * options.rounds, options.rounds)
    report(24, options.width, 1024, options.rounds, min(options.rounds, 2))


if __name__ == "__main__":
    main()

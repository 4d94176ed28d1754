"""Rows of a default probe: all of a small net, few of a large one."""

import logging

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.callbacks.base.cost import affordable
from lit_credit.inspect.probe.probe import Probe


class Large(LightningModule):
    """So many parameters, which take no memory."""

    def __init__(self, count):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1).expand(count))


def probe(rows, chunk, make):
    sizes = [chunk] * (rows // chunk)
    return Probe([(make(size), torch.zeros(size)) for size in sizes], sizes)


def symbols(rows):
    return torch.zeros(256, dtype=torch.long).expand(rows, 256)


def images(size):
    return lambda rows: torch.zeros(3, size, size).expand(rows, 3, size, size)


def vectors(rows):
    return torch.zeros(3072).expand(rows, 3072)


def rows(parameters, chunk, make, steps=1.0, batch_size=None, total=1024):
    found = affordable("It", Large(parameters), probe(total, chunk, make), steps, batch_size)
    assert found.n_rows == sum(len(batch[0]) for batch in found.chunks)
    return found.n_rows


@pytest.mark.parametrize(
    ("parameters", "chunk", "make"),
    [
        (3_400_000, 128, vectors),  # the residual study on CIFAR-10
        (3_400_000, 16, vectors),
        (11_000_000, 128, images(32)),  # ResNet-18
        (800_000, 32, lambda n: symbols(n)[:, :64]),  # our GPT
        (124_000_000, 128, symbols),  # eight batches are no more than 1024 rows
    ],
)
def test_all_of_a_net_of_our_studies(parameters, chunk, make, caplog):
    steps = 1.0 if parameters > 20_000_000 else 4.0
    with caplog.at_level(logging.INFO):
        assert rows(parameters, chunk, make, steps) == 1024
    assert not caplog.messages


def test_few_of_a_large_net_and_a_line(caplog):
    with caplog.at_level(logging.INFO):
        assert rows(124_000_000, 4, symbols) == 32
    (line,) = caplog.messages
    assert "It takes 32 of 1024 rows" in line
    assert "about 8 training steps" in line
    assert "124 million parameters" in line
    assert "`n_samples`" in line


@pytest.mark.parametrize(
    ("steps", "batch_size", "chunk", "expected"),
    [
        (4.0, None, 4, 8),
        (100.0, None, 4, 4),  # one chunk at least
        (1.0, 4, 1, 32),  # smaller chunks are not fewer rows
        (1.0, 4, 64, 64),
        (0.5, 8, 4, 128),
    ],
)
def test_rows_follow_from_the_time_and_not_from_the_chunks(steps, batch_size, chunk, expected):
    assert rows(124_000_000, chunk, symbols, steps, batch_size) == expected


def test_a_batch_without_known_rows_stays_whole():
    whole = Probe([[symbols(700)]], [1])
    assert affordable("It", Large(10**9), whole, 1.0, None) is whole

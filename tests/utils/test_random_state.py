"""Random states in a checkpoint."""

import random

import numpy as np
import torch

from lit_credit.utils.random_state import random_state, set_random_state


def draw():
    # An odd number of normal numbers: half of a pair is kept for the next.
    return (
        random.gauss(0, 1),
        np.random.standard_normal(3).tolist(),  # noqa: NPY002
        torch.randn(3).tolist(),
    )


def test_numbers_go_on_after_a_trip_through_a_checkpoint(tmp_path):
    draw()
    torch.save({"random_state": random_state()}, tmp_path / "state.ckpt")
    expected = [draw(), draw()]
    loaded = torch.load(tmp_path / "state.ckpt", weights_only=True)
    set_random_state(loaded["random_state"])
    assert [draw(), draw()] == expected

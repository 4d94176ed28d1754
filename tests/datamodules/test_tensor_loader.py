import random
from itertools import chain

import numpy as np
import pytest
import torch

from lit_credit.datamodules import TensorLoader

N = 23


def add_noise(batch, generator):
    (x,) = batch
    return x, torch.rand(len(x), generator=generator)


def make(**arguments):
    return TensorLoader([torch.arange(N)], **{"batch_size": 4, "transform": add_noise} | arguments)


def take(loader, epochs=1):
    return [(x.tolist(), noise.tolist()) for _ in range(epochs) for x, noise in loader]


def test_an_epoch_visits_every_sample_once_in_a_new_order_each_time():
    loader = make()
    epochs = [[i for x, _ in take(loader) for i in x] for _ in range(3)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len(loader) == len(take(loader)) == 6


def test_equal_arguments_give_equal_batches_and_another_seed_gives_others():
    assert take(make(seed=5), 3) == take(make(seed=5), 3)
    assert take(make(seed=5)) != take(make(seed=6))


def test_transforms_draw_anew_for_each_batch():
    noise = [tuple(noise) for _, noise in take(make(drop_last=True), 4)]
    assert len(set(noise)) == len(noise) == 20


def test_without_shuffle_the_order_is_that_of_the_tensors():
    loader = make(shuffle=False, transform=None)
    assert [x.tolist() for (x,) in loader][-1] == [20, 21, 22]
    assert [i for (x,) in loader for i in x.tolist()] == list(range(N))


def test_batches_are_copies():
    data = torch.zeros(4)
    next(iter(TensorLoader([data], batch_size=4, shuffle=False)))[0].add_(1)
    assert data.sum() == 0


@pytest.mark.parametrize("position", range(3 * 6 + 1))
def test_resume_after_any_batch(position):
    whole, loader = take(make(), 4), make()
    states = [loader.state_dict()] + [loader.state_dict() for _ in range(3) for _ in loader]
    resumed = make()
    resumed.load_state_dict(states[position])
    assert take(resumed, 4 - position // 6) == whole[position:]


def test_iter_alone_moves_nothing():
    loader = make()
    for _ in range(3):
        iter(loader)
    assert loader.state_dict() == {"epoch": 0, "batch": 0}
    loader.load_state_dict({"epoch": 2, "batch": 3})
    for _ in range(3):
        iter(loader)
    assert take(loader) == take(make(), 3)[2 * 6 + 3 :]


def test_an_epoch_left_early_is_over():
    loader = make()
    for _ in zip(range(2), loader, strict=False):
        pass
    assert take(loader) == take(make(), 2)[6:]


def test_a_second_iteration_does_not_move_the_first():
    loader, expected = make(), take(make())
    seen = []
    for x, noise in loader:
        next(iter(loader))
        seen.append((x.tolist(), noise.tolist()))
    assert seen == expected


def test_set_epoch_goes_to_the_start_of_another_epoch_only():
    loader = make()
    loader.load_state_dict({"epoch": 1, "batch": 3})
    loader.sampler.set_epoch(1)
    assert loader.state_dict() == {"epoch": 1, "batch": 3}
    iterator = iter(loader)
    loader.sampler.set_epoch(2)
    assert next(iterator)[0].tolist() == take(make(), 3)[12][0]


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_slices_of_the_ranks_make_up_the_global_batch(world_size, drop_last):
    single = take(make(drop_last=drop_last))
    ranks = [
        take(make(drop_last=drop_last, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for batch, *slices in zip(single, *ranks, strict=False):
        sizes = {len(x) for x, _ in slices}
        assert len(sizes) == 1
        kept = world_size * sizes.pop()
        assert len(batch[0]) - kept < world_size
        joined = tuple(list(chain(*column)) for column in zip(*slices, strict=True))
        assert joined == tuple(column[:kept] for column in batch)
    # 23 = 5 * 4 + 3: the ragged batch has a row for each of two ranks, but not of four.
    assert len(ranks[0]) == (6 if world_size == 2 and not drop_last else 5)


def test_the_global_random_state_is_neither_read_nor_moved():
    def everything():
        numpy_state = str(np.random.get_state())  # noqa: NPY002
        return random.getstate(), numpy_state, torch.get_rng_state().tolist()

    before = everything()
    first = take(make())
    assert everything() == before
    torch.manual_seed(77)
    assert take(make()) == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"batch_size": 3, "world_size": 2}, "multiple of `world_size`, 2"),
        ({"seed": -1}, "`seed` is -1"),
        ({"rank": 2, "world_size": 2}, "`rank` is 2"),
        ({"batch_size": 24, "drop_last": True}, "leaves no batch of 23"),
        ({"tensors": []}, "`tensors`"),
        ({"tensors": [torch.zeros(2), torch.zeros(3)]}, r"\[2, 3\] samples"),
        ({"tensors": [torch.zeros(0)]}, "above 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TensorLoader(**{"tensors": [torch.arange(N)], "batch_size": 4} | arguments)

"""What all datamodules share, on Digits."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_digits

from lit_credit.datamodules import Digits


@pytest.fixture(scope="module")
def digits():
    data = Digits(batch_size=128, val_split=0)
    data.setup()
    return data


def epoch(loader):
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def test_digits_are_all_there_split_once_and_standardised(digits):
    (x, y), (x_test, y_test) = epoch(digits.train_dataloader()), epoch(digits.val_dataloader())
    assert x.shape == (1437, *digits.shape)
    assert x_test.shape == (360, *digits.shape)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert x.mean().abs() < 1e-5
    assert abs(x.std(correction=0) - 1) < 1e-5
    # Stratified: the shares of the classes agree to a sample.
    shares = torch.bincount(y, minlength=10) / 1437 - torch.bincount(y_test, minlength=10) / 360
    assert shares.abs().max() < 1 / 360
    found = torch.cat((digits.splits[0][0], digits.splits[1][0])).flatten(1).tolist()
    assert sorted(found) == sorted(load_digits().data.tolist())


def test_setup_reads_once(digits):
    before = digits.splits
    digits.setup("fit")
    assert digits.splits is before


def test_the_seed_is_the_runs(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert Digits().train_dataloader().seed == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "42")
    assert Digits().train_dataloader().seed == 42
    assert Digits(seed=7).train_dataloader().seed == 7


def test_a_resumed_run_keeps_its_seed_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "42")
    state = Digits().state_dict()
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    for data, seed in ((Digits(), 42), (Digits(seed=7), 7)):
        data.load_state_dict(state)
        assert data.train_dataloader().seed == seed
        assert data.state_dict() == {"seed": seed}


def test_random_targets_are_uniform_fresh_and_only_in_training():
    plain, random = (Digits(seed=1, random_targets=r, val_split=0) for r in (False, True))
    loader = random.train_dataloader()
    first, second = epoch(loader), epoch(loader)
    assert torch.equal(first[0], epoch(plain.train_dataloader())[0])
    labels = torch.cat([first[1], *(epoch(loader)[1] for _ in range(9))])
    # 1437 a class expected over ten epochs, standard deviation 36.
    assert (torch.bincount(labels, minlength=10) - 1437).abs().max() < 5 * 36
    batches = first[1][: 11 * 128].view(11, 128)
    assert len({tuple(batch) for batch in batches.tolist()}) == 11
    assert not torch.equal(first[1], second[1])
    assert torch.equal(epoch(random.val_dataloader())[1], random.splits[1][1])
    # Chance that a fresh label is the true one: .1, so 144 of 1437, standard deviation 11.
    agree = (first[1] == epoch(plain.train_dataloader())[1]).sum()
    assert 144 - 5 * 11 < agree < 144 + 5 * 11


def test_the_ranks_of_a_trainer_share_each_batch():
    whole = Digits(batch_size=128).train_dataloader()
    parts = []
    for rank in range(2):
        data = Digits(batch_size=128)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        parts.append(data.train_dataloader())
    for (x, y), *slices in zip(whole, *parts, strict=True):
        n = len(x) - len(x) % 2
        assert torch.equal(torch.cat([s[0] for s in slices]), x[:n])
        assert torch.equal(torch.cat([s[1] for s in slices]), y[:n])


def test_it_can_be_printed():
    assert str(Digits(seed=3)) == "Digits(batch_size=128, seed=3, random_targets=False)"


@pytest.mark.parametrize(("normalize", "scale"), [("none", 1), ("unit", 16)])
def test_pixels_as_they_are_or_in_the_unit_interval(normalize, scale):
    data = Digits(normalize=normalize)
    x, _ = epoch(data.val_dataloader())
    assert x.dtype == torch.float32
    assert torch.equal(x, data.splits[1][0].float() / scale)


def test_an_unknown_choice_of_pixels_is_refused():
    with pytest.raises(ValueError, match=r"`normalize` is 'max', expected 'mean_std', 'unit' or"):
        Digits(normalize="max")

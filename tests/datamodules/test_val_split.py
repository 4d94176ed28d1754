"""The validation split of image data."""

import subprocess
import sys

import pytest
import torch

from lit_credit.datamodules import Digits, ImageDataModule
from lit_credit.datamodules.held_out import held_out


def epoch(loader):
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def test_a_tenth_of_each_class_is_for_validation_and_the_test_data_are_untouched():
    data, whole = Digits(), Digits(val_split=0)
    assert (data.has_test_data, data.validates_on_test_data) == (True, False)
    assert (whole.has_test_data, whole.validates_on_test_data) == (False, True)
    train, val, test = data.splits
    counts, held = (torch.bincount(y, minlength=10) for _, y in (whole.splits.train, val))
    assert held.tolist() == [-(-int(n) // 10) for n in counts]
    together = torch.cat((train[0], val[0])).flatten(1).tolist()
    assert sorted(together) == sorted(whole.splits.train[0].flatten(1).tolist())
    for loader in (data.test_dataloader, whole.test_dataloader, whole.val_dataloader):
        assert torch.equal(epoch(loader())[1], test[1])
    assert torch.equal(epoch(data.predict_dataloader())[0], epoch(whole.val_dataloader())[0])
    assert torch.equal(epoch(data.val_dataloader())[1], val[1])


def test_the_split_is_a_function_of_its_own_seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "42")
    splits = [Digits(seed=9).splits, Digits(random_targets=True).splits]
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    torch.manual_seed(3)
    splits.append(Digits().splits)
    for other in splits[1:]:
        assert all(torch.equal(a[0], b[0]) for a, b in zip(splits[0], other, strict=True))
    other = Digits(split_seed=1).splits
    assert not torch.equal(other.val[0], splits[0].val[0])
    assert torch.equal(other.test[0], splits[0].test[0])


def test_another_process_has_the_same_split():
    code = "from lit_credit.datamodules import Digits; print(Digits().splits.val[0].sum().item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == Digits().splits.val[0].sum().item()


def test_random_targets_leave_the_validation_labels_as_they_are():
    random, plain = Digits(random_targets=True), Digits()
    assert torch.equal(epoch(random.val_dataloader())[1], plain.splits.val[1])
    assert not torch.equal(epoch(random.train_dataloader())[1], epoch(plain.train_dataloader())[1])


@pytest.mark.parametrize(
    ("sizes", "held"),
    [
        ([2] * 50, 10),  # each class would give one: half of all
        ([3] * 100, 30),
        ([3, 3, 3], 1),
        ([1] * 40 + [5] * 10, 5),
        ([50, 2, 2, 2], 6),
        ([140] * 10, 140),
    ],
)
def test_tiny_classes_give_a_tenth_together(sizes, held):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    _, val = held_out(len(labels), labels, val_split=0.1)
    assert len(val) == held
    counts = torch.bincount(labels[val], minlength=len(sizes)).tolist()
    assert all(n < size or size == n == 0 for n, size in zip(counts, sizes, strict=True))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_a_class_keeps_a_sample_for_training(fraction):
    labels = torch.tensor([0] * 1 + [1] * 2 + [2] * 9 + [5] * 30)
    train, val = held_out(len(labels), labels, val_split=fraction)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(42))
    percent, small, given = round(100 * fraction), 0, 0
    for label, n in ((0, 1), (1, 2), (2, 9), (5, 30)):
        wanted = -(-percent * n // 100)
        if percent * n < 100 and n > 1:
            small += n
            wanted = -(-percent * small // 100) - given
            given += wanted
        assert int((labels[val] == label).sum()) == min(n - 1, wanted)


def test_only_classes_of_one_sample_leave_nothing_to_validate_on():
    with pytest.raises(ValueError, match=r"`val_split` is 0\.1, which leaves 3 of 3 .* and 0 for"):
        held_out(3, torch.arange(3), val_split=0.1)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=f"`val_split` is {value}, expected a number at least 0"):
        Digits(val_split=value)


def test_a_class_of_ones_own_has_the_split_too():
    class Own(ImageDataModule):
        num_classes, shape, mean, std = 2, (1, 8, 8), (0.0,), (1.0,)

        def read(self, train):
            n = 20 if train else 6
            return torch.zeros(n, 1, 8, 8, dtype=torch.uint8), torch.arange(n) % 2

    assert [len(part[1]) for part in Own().splits] == [18, 2, 6]
    assert [len(part[1]) for part in Own(val_split=0).splits] == [20, 6, 6]

"""Positions and carries by hand and by schoolbook addition."""

import random

import pytest
import torch

from lit_credit.studies.addition.layout import AdditionLayout, carries_in, longest_run


def test_the_34_positions_of_ten_digits_by_hand():
    layout = AdditionLayout()
    x, y = ([f"{name}{i}" for i in range(10)] for name in "XY")
    z = [f"Z{i}" for i in range(11)]
    assert list(layout.names) == [*x, "+", *y, "=", *z, "EOS"]
    assert (layout.length, layout.inputs) == (34, 33)
    places = {
        "X0": 0,
        "X9": 9,
        "+": 10,
        "Y0": 11,
        "Y9": 20,
        "=": 21,
        "Z0": 22,
        "Z10": 32,
        "EOS": 33,
    }
    assert {name: layout.index(name) for name in places} == places
    assert layout.names[layout.x] == tuple(x)
    assert layout.names[layout.y] == tuple(y)
    assert layout.names[layout.z] == tuple(z)
    assert layout.names[layout.rows] == ("=", *z)
    assert layout.names[layout.answers] == (*z, "EOS")
    with pytest.raises(ValueError, match="'Zhi' is no position"):
        layout.index("Zhi")


def test_a_sum_by_hand():
    layout = AdditionLayout(4)
    (tokens,) = layout.encode(torch.tensor([9305]), torch.tensor([698])).tolist()
    assert tokens == [5, 0, 3, 9, 0, 8, 9, 6, 0, 0, 3, 0, 0, 0, 1, 0]
    assert dict(zip(layout.names, tokens, strict=True))["Z4"] == 1


@pytest.mark.parametrize("digits", [1, 3, 10, 18])
def test_sums_and_carries_against_schoolbook_addition(digits):
    rng, layout = random.Random(digits), AdditionLayout(digits)
    largest = 10**digits - 1
    pairs = [(rng.randint(0, largest), rng.randint(0, largest)) for _ in range(50)]
    pairs += [(largest, largest), (largest, 1), (0, 0)]
    tokens = layout.encode(*torch.tensor(pairs).T)
    carries, runs = carries_in(tokens, layout), longest_run(carries_in(tokens, layout))
    for row, (x, y) in enumerate(pairs):
        carry, expected, digits_of_z = 0, [], []
        for i in range(digits + 1):
            expected.append(bool(carry))
            column = x // 10**i % 10 + y // 10**i % 10 + carry
            digits_of_z.append(column % 10)
            carry = column // 10
        assert tokens[row, layout.z].tolist() == digits_of_z
        assert carries[row].tolist() == expected
        words = "".join("1" if c else "0" for c in expected).split("0")
        assert runs[row] == max(map(len, words))
        assert [int(number[row]) for number in layout.decode(tokens)] == [x, y, x + y]


def test_what_is_no_sum_of_so_many_digits_is_refused():
    with pytest.raises(ValueError, match="`digits` is 19"):
        AdditionLayout(19)
    for wrong in (-1, 100):
        with pytest.raises(ValueError, match="`y` has numbers outside of 0 to 99"):
            AdditionLayout(2).encode(torch.tensor([3]), torch.tensor([wrong]))

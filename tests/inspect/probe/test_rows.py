"""What the rows of a batch are, known or not guessed."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from lit_credit.inspect.probe.layout import UnknownRows, proved_layout, row_layout
from lit_credit.inspect.probe.rows import (
    can_join,
    count_rows,
    cut_rows,
    first_rows,
    join_rows,
    split_rows,
)
from lit_credit.inspect.updates import batches_of


def numbers(*shape):
    return torch.arange(float(np.prod(shape))).reshape(shape)


@dataclass
class Record:
    x: Tensor
    note: str = "kept"


class Named(NamedTuple):
    x: Tensor
    y: Tensor


class Graph:
    """As torch_geometric's: an object that cannot be taken apart."""

    def __init__(self):
        self.x = numbers(8, 2)


class Own(dict):
    """A mapping of someone's own, with attributes."""


X, Y = numbers(8, 3), torch.arange(8)

KNOWN = {
    "a tensor": X,
    "fields": (X, Y),
    "default_collate": [X, Y],
    "a number beside": (torch.tensor(0.5), X, Y),
    "a mapping": OrderedDict(x=X, mask=None, y=Y),
    "an own mapping": Own(x=X),
    "a mapping of another base": UserDict(x=X, y=Y),
    "names": {"id": list("abcdefgh"), "x": X},
    "settings": {"size": (3, 4), "name": "a", "x": X},
    "views": [Y, [X, X + 1], Y],
    "a dataclass": Record(X),
    "two dataclasses": {"both": [Record(X), Record(X)], "y": Y},
    "named": Named(X, Y),
    "arrays": {"x": np.ones((8, 2)), "y": Y},
    "texts of each row": {"meta": [{"name": "a", "size": (2, 2)}] * 8, "y": Y},
    "complex": (X + 0j, Y),
}

UNKNOWN = {
    "sequences": ([numbers(5, 2), numbers(3, 2)], torch.arange(2)),
    "sequences of as many steps as there are": [numbers(3, 2) for _ in range(3)],
    "a graph": (numbers(20, 3), torch.zeros(20), numbers(4)),
    "edges": {"x": numbers(8, 3), "edges": numbers(2, 30), "y": Y},
    "detection": (
        [numbers(3, 4, 4) for _ in range(3)],
        [{"boxes": numbers(3, 4), "labels": numbers(3)} for _ in range(3)],
    ),
    "detection by zip": (
        (numbers(1, 4, 4),),
        ({"boxes": numbers(1, 4), "labels": numbers(1)},),
    ),
    "packed": pack_sequence([numbers(3, 2), numbers(2, 2)]),
    "packed inside": (pack_sequence([numbers(3, 2), numbers(2, 2)]), numbers(2)),
    "nested": torch.nested.nested_tensor([numbers(3, 2), numbers(1, 2)], layout=torch.jagged),
    "sparse": (torch.eye(8).to_sparse(), Y),
    "a mask": (X, torch.ones(5, 5), Y),
    "class weights": {"x": X, "weights": torch.ones(4)},
    "positions": (X, torch.ones(1, 3)),
    "an object": Graph(),
    "an object beside": {"graph": Graph(), "y": Y},
    "an object below": {"meta": {"graph": Graph()}, "y": Y},
    "objects, one a row": {"graphs": [Graph()] * 8, "y": Y},
    "sequences of one length": [numbers(6, 2) for _ in range(4)],
    "sequences and labels of one length": ([numbers(6, 2)] * 4, [numbers(6)] * 4),
    "views or sequences": {"both": [Record(X), Record(X)]},
    "texts": ["a", "b"],
    "nothing": None,
    "a scalar": torch.tensor(1.0),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_rows_are_counted_and_cut(kind):
    batch = KNOWN[kind]
    assert count_rows(batch) == 8
    few = first_rows(batch, 3)
    assert type(few) is type(batch)
    assert count_rows(few) == 3
    layout = row_layout(batch)
    assert [count_rows(part, layout) for part in split_rows(batch, 3)] == [3, 3, 2]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_could_be_several_is_not_guessed(kind):
    batch = UNKNOWN[kind]
    assert count_rows(batch) is None
    assert first_rows(batch, 1) is batch
    assert split_rows(batch, 1) == [batch] or split_rows(batch, 1)[0] is batch
    with pytest.raises(UnknownRows):
        row_layout(batch)


@pytest.mark.parametrize("kind", KNOWN)
def test_pieces_joined_are_the_batch(kind):
    batch = KNOWN[kind]
    layout = row_layout(batch)
    pieces = split_rows(batch, 3)
    assert can_join(pieces[0], pieces[-1], layout)
    joined = join_rows(pieces, layout)
    assert str(cut_rows(joined, 0, 8, layout)) == str(batch)


def test_two_rows_of_two_views_are_known_where_lists_are_fields():
    """As in a training step, of which a last batch may have two rows."""
    views = [Y[:2], [X[:2], X[2:4]], Y[:2]]
    assert count_rows(views) is None
    assert row_layout(views, fields=True) == row_layout([Y, [X, X], Y])
    assert [len(part[0]) for part in batches_of([X[:2], X[2:4]], 2)] == [1, 1]
    with pytest.raises(ValueError, match=r"`updates_per_step` is 2.*a tensor a row, or all rows"):
        batches_of(([numbers(6, 2)] * 4, [numbers(6)] * 4), 2)
    assert [part[1][1].tolist() for part in batches_of(views, 2)] == [
        [X[2].tolist()],
        [X[3].tolist()],
    ]


def test_what_is_not_of_rows_stays():
    batch = {"x": X, "scale": torch.tensor(2.0), "size": (3, 4), "names": ["a"]}
    few = first_rows(batch, 2)
    assert few["x"].tolist() == X[:2].tolist()
    assert (few["scale"], few["size"], few["names"]) == (batch["scale"], (3, 4), ["a"])


def test_a_second_batch_tells_what_belongs_to_all_rows():
    mask, weights = torch.ones(5, 5).tril(), torch.tensor([1.0, 2.0, 3.0])
    one, other = ((X + i, mask.clone(), {"y": Y + i, "w": weights}) for i in range(2))
    layout = row_layout(one, other)
    assert layout == {0: "row", 1: "whole", 2: {"y": "row", "w": "whole"}}
    few = first_rows(one, 2, layout)
    assert [few[0].shape, few[1].shape, few[2]["w"].shape] == [(2, 3), (5, 5), (3,)]
    joined = join_rows([one, other], layout)
    assert [joined[0].shape, joined[1].shape] == [(16, 3), (5, 5)]
    # A last batch with fewer rows says as much.
    assert row_layout(one, first_rows(other, 3, layout)) == layout


def test_a_second_batch_can_take_an_answer_away():
    """Graphs of as many nodes as there are, and a mask as large as the batch."""
    by_chance = (numbers(4, 3), torch.arange(4), numbers(4))
    assert count_rows(by_chance) == 4
    with pytest.raises(UnknownRows, match=r"begin with \[4\]|begin with"):
        row_layout(by_chance, (numbers(6, 3) + 1, torch.arange(6), numbers(4) + 1))
    mask = torch.ones(8, 8).tril()
    with pytest.raises(UnknownRows, match=r"the same in two batches of 8 rows"):
        row_layout((X, mask), (X + 1, mask))
    # It says nothing of one whose entries are all alike: each row has the same.
    assert row_layout((X, torch.ones(8, 4)), (X + 1, torch.ones(8, 4))) == {0: "row", 1: "row"}
    # A last batch of another size settles it.
    assert row_layout((X, mask), (X[:5] + 1, mask)) == {0: "row", 1: "whole"}


def test_batches_that_are_the_same_tell_nothing_more():
    assert row_layout((X, Y), (X.clone(), Y.clone())) == {0: "row", 1: "row"}


@pytest.mark.parametrize(
    "other", [(X + 1,), (X + 1, Y, Y), (X + 1, None), {"x": X + 1}, (X + 1, torch.tensor(1))]
)
def test_two_batches_of_different_form_say_so(other):
    with pytest.raises(UnknownRows, match=r"differ in form|has none"):
        row_layout((X, Y), other)


def samples(collate):
    """Batches of two and three samples."""
    return tuple(collate(n) for n in (2, 3))


def test_samples_prove_what_grows_with_them():
    def collate(n):
        return {
            "x": numbers(n, 4),
            "mask": torch.ones(3, 3).tril(),
            "scale": torch.tensor(float(n)),
            "rows": n,
            "fields": [numbers(n), numbers(n)],
            "names": ["a"] * n,
            "classes": ["cat", "dog"],
        }

    layout = proved_layout(*samples(collate))
    assert layout == {
        "x": "row",
        "mask": "whole",
        "scale": "whole",
        "rows": "count",
        "fields": {0: "row", 1: "row"},
        "names": "row",
        "classes": {0: "whole", 1: "whole"},
    }
    batch = collate(3)  # as many rows as channels, and as the mask has
    assert count_rows(batch, layout) == 3
    few = cut_rows(batch, 1, 3, layout)
    assert (few["rows"], few["mask"].shape, few["classes"]) == (2, (3, 3), ["cat", "dog"])
    both = join_rows([few, batch], layout)
    assert (both["rows"], both["names"], both["x"].shape) == (5, ["a"] * 5, (5, 4))


@pytest.mark.parametrize(
    "collate",
    [
        lambda n: (numbers(sum(range(3, 3 + n)), 2), numbers(n)),  # nodes, one label a graph
        lambda n: [numbers(6, 2) for _ in range(n)],  # sequences
        lambda n: {"images": [numbers(3, 2 + i, 2) for i in range(n)], "y": numbers(n)},
        lambda n: tuple({"boxes": numbers(i, 4)} for i in range(n)),
        lambda n: [Graph() for _ in range(n)],
        lambda n: numbers(7, n),  # time first
        lambda n: numbers(2 * n, 3),  # two views, one behind the other
        lambda n: pack_sequence([numbers(3 - i, 2) for i in range(n)]),
        lambda n: torch.nested.nested_tensor([numbers(1, 2)] * n, layout=torch.jagged),
        lambda n: Graph(),
        lambda n: {f"sample {i}": numbers(3) for i in range(n)},
        lambda n: numbers(n, n).sum(0).sum().expand(4),
    ],
)
def test_samples_refute_a_guess(collate):
    with pytest.raises(UnknownRows):
        proved_layout(*samples(collate))


def test_batches_that_do_not_keep_to_a_layout_are_not_counted():
    layout = proved_layout(*samples(lambda n: (numbers(n, 2), numbers(n))))
    assert count_rows((numbers(5, 2), numbers(5)), layout) == 5
    for other in [(numbers(5, 2), numbers(4)), (numbers(5),), (None, numbers(5)), Graph()]:
        assert count_rows(other, layout) is None


def test_rows_of_other_widths_types_and_constants_are_not_joined():
    layout = {"x": "row", "mask": "whole"}
    one = {"x": numbers(4, 3), "mask": torch.ones(2)}
    assert can_join(one, {"x": numbers(2, 3), "mask": torch.ones(2)}, layout)
    for other in [
        {"x": numbers(4, 5), "mask": torch.ones(2)},
        {"x": numbers(4, 3).double(), "mask": torch.ones(2)},
        {"x": numbers(4, 3), "mask": torch.zeros(2)},
        {"x": [1, 2], "mask": torch.ones(2)},
    ]:
        assert not can_join(one, other, layout)


def test_a_joined_batch_has_memory_of_its_own():
    layout = row_layout((X, Y))
    for pieces in ([(X, Y)], split_rows((X, Y), 3)):
        x, y = join_rows(pieces, layout)
        assert x.data_ptr() != X.data_ptr()
        assert y.data_ptr() != Y.data_ptr()
        assert x.untyped_storage().nbytes() == X.untyped_storage().nbytes()

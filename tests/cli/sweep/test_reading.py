"""A point whose numbers alone are new is read as if its words were read."""

from itertools import product
from typing import Annotated, Literal

import pytest
import torch
from jsonargparse.typing import PositiveInt

from lit_credit.cli.configuration import read_words
from lit_credit.cli.sweep import reading
from lit_credit.cli.sweep.grid import Point
from lit_credit.cli.sweep.reading import PointReader
from tests.cli.sweep.test_sweep import BASE

HERE = "tests.cli.sweep.test_reading"
NET = "model.init_args.net"


class Restricted(torch.nn.Module):
    """Takes some numbers only."""

    def __init__(
        self,
        some: Literal[1, 2] = 1,
        positive: PositiveInt = 1,
        small: Annotated[int, "at most 3"] = 1,
        either: str | int = 1,
        many: list[float] | float = 1.0,
        plain: int = 1,
        unclear=1,
    ) -> None:
        super().__init__()


class Heir(Restricted):
    def __init__(self, own: float = 0.0, **kwargs) -> None:
        super().__init__(**kwargs)


@pytest.fixture
def count(monkeypatch):
    """The number of lines of words that were read."""
    calls = []
    monkeypatch.setattr(
        reading, "read_words", lambda words: calls.append(words) or read_words(words)
    )
    return calls


@pytest.fixture
def reader(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    return PointReader([f"--config={tmp_path / 'base.yaml'}"])


def outcome(read, *args):
    """What was read, or why it was refused."""
    try:
        return read(*args)
    except ValueError as error:
        return str(error)


def same(reader, overrides):
    """Whether the reader finds what the words give."""
    point = Point("x", None, overrides)
    found, expected = outcome(reader.read, point), outcome(read_words, reader.words(point))
    if isinstance(expected, str):
        return found == expected
    return found == expected


def test_numbers_alone_are_not_read_again(reader, count):
    """With numbers of the rule, the net, the optimizer, the data and the Trainer."""
    names = (
        "data.init_args.batch_size",
        "trainer.max_epochs",
        "trainer.gradient_clip_val",
        "model.init_args.optimizer.init_args.lr",
        "model.init_args.optimizer.init_args.weight_decay",
    )
    rows = [(64, 3, 0.5, 1e-5, 0.25), (32, 4, 1e-7, 0.1, 1e22), (1, 1, 2.0, 3.0, 1e-4)]
    for rule, row in product(("BP", "DFA"), rows):
        assert same(reader, {"model.class_path": rule, **dict(zip(names, row, strict=True))})
    assert len(count) == 2  # one a rule


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        (f"{NET}.init_args.some", (1, 2, 5)),
        (f"{NET}.init_args.positive", (1, 4, -1)),
        (f"{NET}.init_args.small", (1, 3, 4)),
        (f"{NET}.init_args.either", (1, 2)),
        (f"{NET}.init_args.many", (0.5, 1.5, [1.0, 2.0])),
        (f"{NET}.init_args.unclear", (1, 2, 0.5)),
        (f"{NET}.init_args.plain", (1, 2, 0.5, True, "x", None)),
        (f"{NET}.plain", (1, 2, 0.5)),
        ("trainer.max_epochs", (1, 0.5, 2, "many", None)),
        ("trainer.limit_train_batches", (1, 2, 0.5, 0.25, 1.0)),
        ("model.init_args.optimizer.init_args.lr", (1, 0.5, float("inf"), 2, "x")),
        ("model.init_args.lr", (0.5, 0.25)),
        ("trainer.nothing", (1, 2)),
    ],
)
def test_whatever_is_not_plainly_a_number_is_read(reader, name, values):
    named = {f"{NET}.class_path": f"{HERE}.Restricted", f"{NET}.init_args": {}}
    for value in values:
        overrides = {name: value}
        assert same(reader, named | overrides if name.startswith(NET) else overrides)


def test_arguments_that_a_class_hands_on_are_found(reader, count):
    for own, plain, small in ((0.5, 1, 1), (0.25, 7, 1), (1.0, 2, 4)):
        numbers = {"own": own, "plain": plain, "small": small}
        overrides = {f"{NET}.class_path": f"{HERE}.Heir"}
        assert same(reader, overrides | {f"{NET}.init_args.{k}": v for k, v in numbers.items()})
    assert len(count) == 3  # `small` may be restricted
    for own, plain in ((0.5, 1), (0.25, 7)):
        numbers = {"own": own, "plain": plain}
        overrides = {f"{NET}.class_path": f"{HERE}.Heir"}
        assert same(reader, overrides | {f"{NET}.init_args.{k}": v for k, v in numbers.items()})
    assert len(count) == 4

"""What reading leaves behind, and what it must not touch."""

import queue
import random
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lit_credit.inspect.probe.undisturbed import undisturbed


class Holder:
    def __init__(self, **values):
        vars(self).update(values)


GENERATORS = {
    "torch": (
        lambda: torch.Generator().manual_seed(1),
        lambda g: float(torch.rand((), generator=g)),
    ),
    "numpy": (lambda: np.random.default_rng(1), lambda g: g.random()),
    "old numpy": (lambda: np.random.RandomState(1), lambda g: g.rand()),
    "python": (lambda: random.Random(1), lambda g: g.random()),
}


def closed_over(draws):
    return lambda: draws


class Method:
    def __init__(self, draws):
        self.draws = draws

    def __call__(self):
        return self.draws

    def method(self):
        return self.draws


class Module(nn.Module):
    def __init__(self, draws):
        super().__init__()
        self.draws = draws


PLACES = {
    "an attribute": lambda draws: Holder(a=Holder(b=draws)),
    "a list": lambda draws: [{"a": (draws,)}],
    "a closure": closed_over,
    "a partial": lambda draws: partial(max, draws),
    "a method": lambda draws: Method(draws).method,
    "a callable": Method,
    "a transform": lambda draws: nn.Sequential(Module(draws)),
}


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("place", PLACES)
def test_generators_come_back(kind, place):
    make, draw = GENERATORS[kind]
    draws = make()
    with undisturbed(PLACES[place](draws)):
        inside = [draw(draws) for _ in range(3)]
    assert [draw(draws) for _ in range(3)] == inside


def test_attributes_and_containers_come_back_as_they_were():
    held = {
        "list": [1],
        "dict": {"a": 1},
        "set": {1},
        "count": 0,
        "file": None,
        "tensor": torch.ones(2),
    }
    thing = Holder(**held)
    containers = [thing.list, thing.dict, thing.set]
    with suppress(RuntimeError), undisturbed(Holder(thing=thing)):
        thing.list.append(2)
        thing.dict["b"] = 2
        thing.set.add(2)
        thing.count += 1
        thing.file, thing.new, thing.tensor = "open", 1, torch.zeros(2)
        raise RuntimeError
    assert vars(thing) == held
    assert all(a is b for a, b in zip(containers, [thing.list, thing.dict, thing.set], strict=True))
    assert (thing.list, thing.dict, thing.set) == ([1], {"a": 1}, {1})


def test_what_is_at_work_is_left_alone():
    """As queues, to which a worker adds in the meantime."""
    waiting, it = queue.Queue(), iter([1, 2, 3])
    with undisturbed(Holder(waiting=waiting, it=it)):
        waiting.put(1)
        next(it)
    assert waiting.qsize() == 1
    assert next(it) == 2


def test_a_thing_that_holds_itself_is_met_once():
    thing = Holder(count=0)
    thing.me = [thing]
    with undisturbed(thing):
        thing.count += 1
    assert thing.count == 0


def test_long_lists_are_not_looked_through():
    draws = random.Random(1)
    with undisturbed([draws] * 2000):
        inside = draws.random()
    assert draws.random() != inside

"""Batches as other projects have them."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_credit.callbacks import ResidualNorms
from lit_credit.utils.nested import first_tensor, map_tensors, replace_first, with_items
from tests import support
from tests.support import Foreign
from tests.support.watched import UNITS, fit, same_values, watched


@dataclass
class Record:
    x: Tensor
    y: Tensor
    note: str = "kept"


@dataclass(frozen=True)
class Frozen:
    x: Tensor
    y: Tensor


class Named(NamedTuple):
    x: Tensor
    y: Tensor


class Graph:
    """As torch_geometric's batches: an object with a method ``to`` and nothing to iterate."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def to(self, device, **kwargs):
        return self


def encoding(x, y):
    transformers = pytest.importorskip("transformers")
    return transformers.BatchEncoding({"x": x, "y": y})


FORMATS = {
    "dict": lambda x, y: OrderedDict(x=x, mask=None, y=y),
    "nested": lambda x, y: {"in": [x, {"out": (y,)}], "rows": len(x)},
    "names": lambda x, y: {"id": [f"row {i}" for i in range(len(x))], "x": x, "y": y},
    "dataclass": Record,
    "dataclasses": lambda x, y: {"both": [Record(x, y), Record(x, y)]},
    "named tuple": Named,
    "encoding": encoding,
}


def opened(batch):
    if isinstance(batch, dict) and "in" in batch:
        return batch["in"][0], batch["in"][1]["out"][0]
    if isinstance(batch, dict) and "both" in batch:
        return batch["both"][0].x, batch["both"][1].y
    return (batch.x, batch.y) if hasattr(batch, "note") else (batch["x"], batch["y"])


class Opening(Foreign):
    """Takes every format."""

    def training_step(self, batch, batch_idx):
        pair = batch if isinstance(batch, tuple) else opened(batch)
        return super().training_step(tuple(pair), batch_idx)


def loader(form):
    def collate(rows):
        return form(*map(torch.stack, zip(*rows, strict=True)))

    generator = torch.Generator().manual_seed(5)
    rows = support.Rows(24, "tuple")
    return DataLoader(rows, batch_size=8, shuffle=True, generator=generator, collate_fn=collate)


@pytest.fixture(scope="module")
def as_tuples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuples")
    return watched(folder, Opening, data=lambda: [loader(lambda *pair: pair)])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_is_taken_and_gives_what_a_tuple_gives(kind, as_tuples, tmp_path):
    found = watched(tmp_path, Opening, data=lambda: [loader(FORMATS[kind])])
    assert same_values(as_tuples, found)
    probe = found[0].probe.chunks[0]
    assert type(probe) is type(FORMATS[kind](torch.zeros(1), torch.zeros(1)))
    assert len(first_tensor(probe)) == 7


def test_a_checkpoint_beside_a_probe_of_a_special_type_loads_with_weights_only(tmp_path):
    def data():
        return [loader(Record)]

    callback = ResidualNorms(units=UNITS, n_samples=7, figure=False)
    run = fit(tmp_path, Opening(), callback, data=data)
    run.save_checkpoint(tmp_path / "saved.ckpt")
    state = torch.load(tmp_path / "saved.ckpt", weights_only=True)["callbacks"][callback.state_key]
    assert "probe" not in state
    resumed = ResidualNorms(units=UNITS, n_samples=7, figure=False)
    again = support.trainer(tmp_path, resumed, logger=False, max_epochs=2)
    again.fit(Opening(), *data(), ckpt_path=tmp_path / "saved.ckpt")
    assert [row["epoch"] for row in resumed.history.rows] == [0, 1, 2]
    assert isinstance(resumed.probe.chunks[0], Record)
    assert resumed.probe.chunks[0].note == "kept"


class OfGraphs(Foreign):
    """Sizes of its batches are for itself to say, as Lightning asks of such projects."""

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.model(batch.x), batch.y)


def test_an_object_that_shows_no_tensors_is_a_whole_batch(tmp_path):
    found = watched(tmp_path, OfGraphs, data=lambda: [loader(Graph)])
    assert found[0].probe.rows == [1]
    assert len(found[0].probe.chunks[0].x) == 8


class Unpacking(OfGraphs):
    """Shows its rows."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return Record(batch.x, batch.y)


def test_an_object_that_is_unpacked_has_rows(tmp_path):
    found = watched(tmp_path, Unpacking, data=lambda: [loader(Graph)])
    assert found[0].probe.rows == [7]


def test_lightning_refuses_a_frozen_dataclass_before_we_see_it(tmp_path):
    with pytest.raises(ValueError, match="frozen dataclass"):
        fit(tmp_path, Opening(), data=lambda: [loader(Frozen)])


def test_what_a_module_returns_may_be_a_frozen_dataclass_or_a_subclass_of_list():
    class Several(list):
        pass

    value = Frozen(torch.zeros(2), Several([torch.ones(2)]))
    changed = map_tensors(value, lambda tensor: tensor + 1)
    assert isinstance(changed, Frozen)
    assert isinstance(changed.y, Several)
    assert changed.x.tolist() == [1, 1]
    assert changed.y[0].tolist() == [2, 2]
    assert replace_first(value, torch.ones(3)).x.tolist() == [1, 1, 1]
    assert value.x.tolist() == [0, 0]
    assert with_items((1, 2), [(1, 5)]) == (1, 5)

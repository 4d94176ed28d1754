"""The residual stream of a net that declares none: the one stack of blocks that it has."""

from functools import partial

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_credit.callbacks import GradientNorms, ReferenceValidity, ResidualNorms, ScaleStability
from tests.support import Validated, fit
from tests.support.nets import CLASSES

KINDS = (ResidualNorms, GradientNorms, ReferenceValidity, ScaleStability)
ENCODER = partial(nn.TransformerEncoder, enable_nested_tensor=False)


class Encoder(nn.Module):
    """Two layers of a transformer, on the features of ``support.tensors`` as positions."""

    def __init__(self, stacks=1):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 1, 4, dropout=0.0, batch_first=True)
        self.embed = nn.Linear(1, 4)
        self.stacks = nn.ModuleDict({f"s{i}": ENCODER(layer, 2) for i in range(stacks)})
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        h = self.embed(x[..., None])
        for stack in self.stacks.values():
            h = stack(h) * 2
        return self.head(h.mean(1))


def test_diagnostics_of_the_stream_take_the_only_stack(tmp_path, caplog):
    found, given = ([kind(**more, figure=False) for kind in KINDS] for more in ({}, UNITS))
    fit(tmp_path, Validated(Encoder), *found, *given, max_epochs=1)
    said = "takes model.stacks.s0.layers.0 .. model.stacks.s0.layers.1 as the residual stream"
    for one, other in zip(found, given, strict=True):
        assert sum(f"{type(one).__name__} {said}" in line for line in caplog.messages) == 1
        assert len(one.history.rows) == len(other.history.rows) > 1
        rows = [list(row["values"].values()) for row in one.history.rows]
        assert str(rows) == str([list(row["values"].values()) for row in other.history.rows])
        proved = one.history.rows[0]["proved"]
        assert any(text.startswith("each block reads what the one before") for text in proved)


UNITS = {"units": ["model.stacks.s0.layers.*"]}


def test_of_two_stacks_none_is_guessed(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"has 2 stacks .*s0\.layers\.\*'\]; \['"):
        fit(tmp_path, Validated(partial(Encoder, 2)), ResidualNorms())

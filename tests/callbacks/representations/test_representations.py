"""Representations against a slow twin, over chunks, and over the end of a process."""

import math
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lit_credit.callbacks import Representations
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.representations.unit_features import rows_first, sample_rows
from lit_credit.functional import linear_cka
from lit_credit.inspect.capture import Point
from lit_credit.inspect.probe.probe import Probe
from lit_credit.models import MLP
from lit_credit.rules import BP, FrozenUnits
from lit_credit.runs.history import read_history
from lit_credit.runs.representations import SavedGrams, find_grams, read_grams
from tests import support
from tests.callbacks import twin
from tests.callbacks.representations.test_layer_probes import Foreign
from tests.support import fit

N = 12


def prepared(module, **options):
    callback = Representations(**options)
    module.eval()
    callback.prepare(support.trainer(None, logger=False), module)
    return callback


def measured(callback, module, data, sizes=(N,)):
    parts = zip(*(part.split(list(sizes)) for part in data), strict=True)
    chunks = [Chunk(module, p, n, n / sum(sizes)) for p, n in zip(parts, sizes, strict=True)]
    return callback.measure(module, chunks)


@pytest.mark.parametrize("read", ["units", "stream"])
def test_against_plain_cka_of_a_forward_written_by_hand(read):
    module, (x, y) = twin.make(BP), twin.batch(N)
    callback = prepared(module, read=read)
    values = measured(callback, module, (x, y))
    before = twin.run(twin.parameters(module), x)
    first = before[0 if read == "stream" else 1]
    assert values["ends"] == pytest.approx(linear_cka(first[0], first[-1]).item(), abs=1e-4)
    neighbours = [linear_cka(a, b).item() for a, b in pairwise(first)]
    assert values["neighbours"] == pytest.approx(np.mean(neighbours), abs=1e-4)
    layers = range(len(first))
    assert [values[f"initial/L{i:02d}"] for i in layers] == pytest.approx([1.0] * len(first))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    values = measured(callback, module, (x, y))
    then = twin.run(twin.parameters(module), x)[0 if read == "stream" else 1]
    expected = [linear_cka(a, b).item() for a, b in zip(first, then, strict=True)]
    assert [values[f"initial/L{i:02d}"] for i in layers] == pytest.approx(expected, abs=1e-4)
    assert values["initial_mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert values["initial_mean"] < 0.9


@pytest.mark.parametrize("sizes", [[5, 5, 2], [1] * N])
def test_chunks_do_not_matter(sizes):
    torch.manual_seed(0)
    module = Foreign(nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 4))
    data = support.tensors(N)
    whole = measured(prepared(module, units=["units.*"]), module, data)
    found = measured(prepared(module, units=["units.*"]), module, data, sizes)
    assert found == pytest.approx(whole, abs=1e-6)


def test_a_unit_that_does_not_vary_is_undefined():
    module = Foreign(nn.Tanh(), nn.Threshold(1e9, 0.1), nn.Identity())
    values = measured(prepared(module, units=["units.*"]), module, support.tensors(N))
    assert values["initial/L00"] == pytest.approx(1)
    for tag in ("initial/L01", "ends", "neighbours"):
        assert math.isnan(values[tag])
    too_few = measured(prepared(module, units=["units.*"]), module, support.tensors(3), [3])
    assert all(math.isnan(value) for value in too_few.values())


class Second(LightningModule):
    """Runs with the batch second, as torch's transformers do by default."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)

    def run_batch(self, batch):
        return self.layer(batch[0].transpose(0, 1))


@pytest.mark.parametrize("positions", [5, 6])
def test_the_batch_may_be_second_also_where_positions_are_as_many(positions):
    x = torch.randn(6, positions, 8, generator=torch.Generator().manual_seed(0))
    module, point = Second().eval(), Point("layer", "output")
    chunk = Chunk(module, (x,), 6, layout={0: "row"})
    found = rows_first(chunk, chunk.values([point]), 6)[point]
    assert found.equal(module.run_batch((x,)).transpose(0, 1))
    assert rows_first(chunk, {point: found[:, :5]}, 6)[point].equal(found[:, :5])


def test_outputs_with_other_rows():
    value = torch.randn(6, 4, 3)
    assert sample_rows(value, 6).equal(value)
    assert sample_rows(value.flatten(0, 1), 6).equal(value)
    assert sample_rows(value, 5) is None
    assert sample_rows(value, None).equal(value)

    class Sums(nn.Module):
        def forward(self, h):
            return h.sum(0, keepdim=True)

    module = Foreign(nn.Tanh(), Sums())
    with pytest.warns(UserWarning, match=r"no row for each sample.*units.1 \(1, 12\)"):
        values = measured(prepared(module, units=["units.*"]), module, support.tensors(N))
    assert math.isnan(values["initial/L01"])
    assert values["initial/L00"] == pytest.approx(1)
    with pytest.raises(MisconfigurationException, match="Choose other `units`"):
        measured(prepared(module, units=["units.1"]), module, support.tensors(N))


# The first measurement, and files


def run(folder, steps, ckpt_path=None, rule=BP, net=support.NoisyNet):
    callback = Representations(n_samples=7, every_n_steps=4, figure=False)
    saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    given = {"max_steps": steps, "max_epochs": -1, "enable_checkpointing": True, "logger": False}
    fit(folder, support.rule(rule, net), callback, saving, ckpt_path=ckpt_path, **given)
    return callback


def values_of(folder):
    return [row["values"] for row in read_history(folder / "representations.jsonl")]


MOVED = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@MOVED
@pytest.mark.parametrize("moved", [False, True])
def test_a_resumed_run_keeps_the_first_measurement(moved, tmp_path):
    run(tmp_path / "whole", 12)
    run(tmp_path / "cut", 6)
    cut = tmp_path / "cut"
    if moved:
        cut = cut.rename(tmp_path / "elsewhere")
    run(cut, 12, ckpt_path=cut / "step=4.ckpt")
    assert values_of(cut) == values_of(tmp_path / "whole")
    assert values_of(cut)[-1]["cka/initial_mean"] < 0.9999
    names = ["representations.npz", "representations_initial.npz"]
    for name in names:
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [f for f in support.files(cut) if f.endswith("npz")] == names


@MOVED
def test_a_run_resumed_in_another_folder_has_the_file_there(tmp_path):
    run(tmp_path / "first", 6)
    run(tmp_path / "second", 8, ckpt_path=tmp_path / "first" / "step=4.ckpt")
    run(tmp_path / "whole", 8)
    assert values_of(tmp_path / "second") == values_of(tmp_path / "whole")
    assert read_grams(tmp_path / "second" / "representations_initial.npz").step == 0


def test_a_lost_first_measurement_is_not_replaced(tmp_path):
    run(tmp_path, 6)
    (tmp_path / "representations_initial.npz").unlink()
    with pytest.warns(UserWarning, match="representations_initial.npz.*is not there any more"):
        run(tmp_path, 8, ckpt_path=tmp_path / "step=4.ckpt")
    rows = values_of(tmp_path)
    assert rows[1]["cka/initial_mean"] > 0
    assert math.isnan(rows[-1]["cka/initial_mean"])
    assert math.isfinite(rows[-1]["cka/ends"])


def test_checkpoints_hold_no_matrix(tmp_path):
    run(tmp_path, 4)
    saved = torch.load(tmp_path / "step=4.ckpt", weights_only=False)
    (state,) = [s for key, s in saved["callbacks"].items() if key.startswith("Representations")]
    assert set(state["initial"]) == {"path", "crc"}


def test_a_validation_compares_with_the_first_measurement_of_the_same_data_only(tmp_path):
    callback = run(tmp_path, 4)
    trained = values_of(tmp_path)[-1]
    for loader, known in ((support.val_loader(), True), (support.train_loader(), False)):
        module = support.rule(BP)
        watch = Representations(n_samples=7, every_n_steps=4, figure=False)
        trainer = support.trainer(tmp_path, watch, logger=False)
        checkpoint = tmp_path / "step=4.ckpt"
        trainer.validate(module, loader, ckpt_path=checkpoint, verbose=False)
        values = watch.history.rows[-1]["values"]
        assert math.isfinite(values["cka/initial_mean"]) is known
        if known:
            assert values == pytest.approx(trained, nan_ok=True)
    assert (tmp_path / "validate" / "representations.npz").is_file()
    assert not (tmp_path / "validate" / "representations_initial.npz").exists()
    assert callback.history.rows


def small_mlp():
    return MLP(12, [8, 8], num_classes=4)


def test_frozen_units_stay_as_they_were(tmp_path):
    run(tmp_path / "frozen", 12, rule=FrozenUnits, net=small_mlp)
    run(tmp_path / "trained", 12, net=small_mlp)
    frozen, trained = (values_of(tmp_path / name)[-1] for name in ("frozen", "trained"))
    for layer in ("L00", "L01"):
        assert frozen[f"cka/initial/{layer}"] == pytest.approx(1, abs=1e-9)
        assert trained[f"cka/initial/{layer}"] < 0.9999


def test_the_file_is_read_back_and_others_are_refused(tmp_path):
    grams = np.arange(6, dtype=np.float32).reshape(2, 3)
    saved = SavedGrams(grams, ["a", "b"], 3, 7, "digest")
    path = tmp_path / "some.npz"
    path.write_bytes(saved.to_bytes())
    found = read_grams(path)
    assert (found.names, found.rows, found.step, found.digest) == (["a", "b"], 3, 7, "digest")
    assert (found.grams == grams).all()
    for wrong in (
        b"",
        b"text",
        saved.to_bytes()[:-30],
        SavedGrams(grams, ["a"], 3, 7, "").to_bytes(),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"some\.npz cannot be read"):
            read_grams(path)
        told = {"path": str(path), "crc": 1}
        assert find_grams(told, None) is None
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match=r"some\.npz cannot be read"):
        read_grams(path)


def test_the_digest_knows_the_rows_and_not_the_chunks():
    x, y = support.tensors(N)
    mask = torch.ones(3)
    layout = ("row", "row", "whole")
    layout = dict(enumerate(layout))

    def digest(x, y, size, mask=mask):
        parts = list(zip(x.split(size), y.split(size), strict=True))
        return Probe([(a, b, mask) for a, b in parts], [len(a) for a, _ in parts], layout).digest()

    expected = digest(x, y, N)
    assert len(expected) == 16
    assert digest(x, y, 5) == digest(x, y, 1) == expected
    others = [digest(x + 1e-6, y, N), digest(x, y.roll(1), N), digest(x, y, N, 2 * mask)]
    others += [digest(x[:-1], y[:-1], N), digest(x.double(), y, N)]
    assert len({expected, *others}) == 6

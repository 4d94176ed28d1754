"""What a person sees of a diagnosis."""

import csv

import matplotlib.pyplot as plt
import pytest
import torch

from lit_credit.callbacks import AttentionMaps, ResidualNorms
from lit_credit.diagnosis import diagnose
from tests import support
from tests.support import NoisyNet


@pytest.fixture(scope="module")
def found():
    nets = []
    for step in range(3):
        torch.manual_seed(step)
        nets.append((10 * step, NoisyNet().state_dict()))
    diagnostics = [ResidualNorms(units=["embed", "blocks.*"], n_samples=6), AttentionMaps()]
    return diagnose(NoisyNet(), diagnostics, support.tensors(6), checkpoints=nets)


def test_rows_are_tidy(found, tmp_path):
    norms = [row for row in found.rows if row["diagnostic"] == "residual_norms"]
    assert list(norms[0]) == ["diagnostic", "step", "epoch", "tag", "value"]
    assert len(norms) == 3 * len(found["residual_norms"].values)
    assert sorted({row["step"] for row in norms}) == [0, 10, 20]
    paths = found.to_csv(tmp_path / "tables")
    assert tmp_path / "tables" / "residual_norms.csv" in paths
    lines = list(csv.DictReader(paths[0].read_text().splitlines()))
    wanted = pytest.approx([row["value"] for row in norms])
    assert [float(line["value"]) for line in lines] == wanted


def test_text_is_short_and_html_has_each_figure_once(found):
    assert "residual_norms, 3 checkpoints, steps 0 to 20" in repr(found)
    assert len(repr(found).splitlines()) < 20
    page = found._repr_html_()
    assert page.count("<img ") == len(found.figures) == 2
    assert plt.get_fignums() == []


def test_a_process_of_several_measures_by_itself(monkeypatch):
    """As in a script that torchrun starts twice."""
    norms = ResidualNorms(units=["embed"], n_samples=6)
    torch.manual_seed(0)
    net = NoisyNet()
    wanted = diagnose(net, norms, support.tensors(6)).rows
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29501")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert wanted == diagnose(net, norms, support.tensors(6)).rows
    assert wanted

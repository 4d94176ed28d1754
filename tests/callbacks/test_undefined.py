"""Figures, tables and readings of histories that are NaN or inf, in part or from end to end."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from matplotlib.figure import Figure
from matplotlib.text import Text

from lit_credit.callbacks import TextSamples
from lit_credit.callbacks.distributions import divergence_figure
from lit_credit.plotting import layer_curves
from lit_credit.rules import FA
from lit_credit.runs.history import read_history
from tests import support
from tests.callbacks.test_contract import SCHEDULED, make, net_for
from tests.support import fit

WRONG = re.compile(r"\b(nan|NaN|None)\b")


class Breaks(Callback):
    """Every weight is NaN from the second epoch on."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            for parameter in pl_module.net.parameters():
                torch.nn.init.constant_(parameter, torch.nan)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Each diagnostic after a run that broke, and the run's folder."""
    found = {}

    def run(kind):
        if kind not in found:
            folder, callback = tmp_path_factory.mktemp(kind.name), make(kind, figure=False)
            module = support.rule(FA, net_for(kind))
            fit(folder, module, Breaks(), callback, max_epochs=2, logger=False)
            found[kind] = callback, folder
        return found[kind]

    return run


def finite(values):
    return np.isfinite(np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)).any()


def shows(ax):
    """Whether there is something in the axes: a curve, a bar, an image, or a word."""
    curves = [line for line in ax.lines if len(line.get_ydata()) > 2 or line.get_marker() != "None"]
    return (
        any(finite(line.get_ydata()) for line in curves)
        or any(finite(image.get_array()) for image in ax.images)
        or any(patch.get_window_extent().width > 0 for patch in ax.patches)
        or any(re.search("n/a|inf", text.get_text()) for text in [*ax.texts, ax.title])
    )


def check(figure):
    # All of it, without the pixels and without room for texts, which takes most of the time.
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        assert not WRONG.search(text.get_text()), text.get_text()
    panels = [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]
    assert panels
    for ax in panels:
        assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()
        assert shows(ax), ax.get_title(loc="left") or ax.get_title()


def replaced(rows, kind):
    """The rows with other values: all of them NaN, or infinite from the second row on."""
    values = {
        "as measured": lambda i, row: row,
        "nan": lambda i, row: dict.fromkeys(row, math.nan),
        "inf": lambda i, row: {t: math.inf * (-1) ** k for k, t in enumerate(row)} if i else row,
    }[kind]
    return [{**row, "values": values(i, row["values"])} for i, row in enumerate(rows)]


def drawn(callback, rows):
    found = callback.draw(rows, callback.section)
    return [found] if isinstance(found, Figure) else list((found or {}).values())


@pytest.mark.few(4)
@pytest.mark.parametrize("kind", SCHEDULED)
def test_of_a_run_that_broke(kind, broken):
    callback, folder = broken(kind)
    rows = callback.history.rows
    assert any(math.isfinite(v) for v in rows[0]["values"].values())
    assert any(math.isnan(v) for v in rows[-1]["values"].values())
    for values in ("as measured", "nan", "inf"):
        changed = replaced(rows, values)
        figures = drawn(callback, changed)
        assert figures
        for figure in figures:
            check(figure)
        reading = callback.reading(changed, callback.section)
        assert reading is None or not WRONG.search(reading), reading
    for path in folder.glob("*.csv"):
        assert not WRONG.search(path.read_text())
    assert len(read_history(folder / f"{kind.name}.jsonl")) == len(rows)


OF_THE_DATA = re.compile(
    r"/(null|null_sd|welch|random|accuracy_chance|kl_uniform|accuracy_max|contexts|kl_low_rank|(reference_)?share_below)(/|$)"
)
"""What is known of the data, of shapes or of dtypes, whatever becomes of the weights."""


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", SCHEDULED)
def test_nothing_is_said_of_weights_that_are_not_finite(kind, broken):
    last = broken(kind)[0].history.rows[-1]["values"]
    said = [t for t, v in last.items() if math.isfinite(v) and not OF_THE_DATA.search(t)]
    assert said == []


def test_a_curve_that_ends_undefined_says_so_at_its_end():
    values = [1.0, 2.0, math.nan, math.nan]
    rows = [
        {"step": i, "epoch": i, "name": "", "values": {"a/L00": value, "divergence/kl": value}}
        for i, value in enumerate(values)
    ]
    curves = layer_curves(rows, "a/", ylabel="", title="")
    for figure, text in (
        (curves, "L00 n/a"),
        (divergence_figure({"BP": [rows]}), "n/a"),
    ):
        ax = figure.axes[0]
        assert [label.get_text() for label in ax.texts] == [text]
        assert ax.get_xlim() == (0, 3)


def test_text_of_a_net_that_broke_is_not_applicable():
    class Broken(LightningModule):
        def forward(self, x):
            return torch.full((*x.shape, 5), torch.nan)

    data = SimpleNamespace(encode=lambda text: torch.zeros(len(text)).long(), block_size=4)
    text = TextSamples(prompt="ab").sample(SimpleNamespace(datamodule=data), Broken())
    assert text == "ab (n/a: the net's logits are not finite)"

"""The six panels of the copying study."""

import itertools
import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from lit_credit.callbacks.heads import circuit_figure


def history(values_at, name="circuit_matching", step=100):
    return [
        {"step": step * i, "epoch": i, "name": name, "values": values}
        for i, values in enumerate(values_at)
    ]


def run(level, ranks=(5, 10), section="circuits"):
    circuits = []
    for i in range(4):
        values = {f"{section}/z/best": level * i, f"{section}/mismatch/best": 1 - 0.3 * i}
        values |= {f"{section}/null_sd/z": 0.125, f"{section}/z/null": 0.0}
        for r in ranks:
            values |= {
                f"{section}/match_rms/R{r:02d}/best": 0.2 * i + 0.01 * r,
                f"{section}/match_rms/R{r:02d}/null": 0.1 * math.sqrt(r),
                f"{section}/null_sd/match_rms/R{r:02d}": 0.02,
                f"{section}/embedding_rms/R{r:02d}/mean": 0.3,
            }
        circuits.append(values)
    errors = [{"val/ood_error": 1 - 0.2 * i, "val/id_error": 0.9 - 0.2 * i} for i in range(4)]
    return {"circuit_matching": history(circuits), "metrics": history(errors, "metrics")}


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_one_run_has_all_its_ranks_and_their_nulls():
    figure = circuit_figure({"BP": [run(1.0)]}, title="title")
    out, within, z, match, mismatch, embedding = figure.axes
    assert list(out.lines[0].get_ydata()) == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert list(within.lines[0].get_ydata()) == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert list(z.lines[0].get_xdata()) == [0, 100, 200, 300]
    assert list(z.lines[1].get_ydata()) == [0, 0]  # unrelated circuits
    assert len(z.patches) == 1
    band = z.patches[0].get_extents().transformed(z.transData.inverted())
    assert (band.y0, band.y1) == (pytest.approx(-0.25), pytest.approx(0.25))
    for panel in (match, embedding):
        curves, levels = panel.lines[:2], panel.lines[2:]
        assert [line.get_ydata()[0] for line in levels] == pytest.approx(
            [0.1 * math.sqrt(5), 0.1 * math.sqrt(10)]
        )
        assert [c.get_color() for c in curves] == [level.get_color() for level in levels]
    assert texts(match) == ["rank 5  0.65", "rank 10  0.70"]
    assert texts(mismatch) == ["0.10"]
    assert "Runs: BP: 1." in figure.get_supxlabel()


def test_several_runs_share_a_rank_and_have_a_band_each():
    runs = {"BP": [run(1.0), run(2.0)], "FA": [run(0.1), run(0.2), run(0.3)]}
    figure = circuit_figure(runs)
    _, _, z, match, *_ = figure.axes
    assert [line.get_ydata()[3] for line in z.lines[:2]] == pytest.approx([4.5, 0.6])
    assert len(z.collections) == 2
    assert texts(match) == ["BP  0.70", "FA  0.70"]
    assert "rank 10" in match.get_ylabel()
    assert "rank 5" in circuit_figure(runs, rank=5).axes[3].get_ylabel()


def test_every_curve_has_its_name_inside_of_the_picture_and_no_two_overlap():
    names = ["BP", "FA", "FA, signs of W", "DFA", "BP, 50 patterns"]
    figure = circuit_figure({name: [run(0.1 * i)] for i, name in enumerate(names)})
    FigureCanvasAgg(figure).draw()
    for ax in figure.axes:
        assert {text.split("  ")[0] for text in texts(ax)} == set(names)
        boxes = sorted((Text.get_window_extent(text) for text in ax.texts), key=lambda b: b.y0)
        assert all(one.y1 <= other.y0 + 1 for one, other in itertools.pairwise(boxes))
        assert all(0 <= box.x0 < box.x1 <= figure.bbox.width for box in boxes)


def test_noise_of_z_does_not_fill_its_panel():
    figure = circuit_figure({"BP": [run(0.01)]})
    low, high = figure.axes[2].get_ylim()
    assert high - low >= 1.0


def test_steps_may_be_logarithmic_from_the_first_one_on():
    figure = circuit_figure({"BP": [run(1.0)]}, log_steps=True)
    for ax in figure.axes:
        assert ax.get_xscale() == "symlog"
        assert ax.get_xlim() == (0, 300)


def test_what_was_not_measured_is_said_and_a_sibling_has_its_own_tags():
    sibling = run(1.0, section="circuits-1")
    sibling["metrics"] = history([{"val/loss": 1.0}], "metrics")
    figure = circuit_figure({"BP": [sibling]}, section="circuits-1")
    z, *others = figure.axes
    assert len(z.lines) == 2
    assert len(others) == 3  # without panels of the errors, which only copying has
    assert all(texts(ax) == ["n/a"] for ax in circuit_figure({"BP": [sibling]}).axes[:4])
    undefined = {"circuit_matching": history([{"circuits/z/best": math.nan}] * 2)}
    assert texts(circuit_figure({"BP": [undefined]}).axes[0]) == ["n/a"]

"""The anatomy of the micro adder: nets whose answer is known, and the command line."""

import csv
import math

import pytest
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from torch import nn

from lit_credit.cli import main
from lit_credit.models import Ensemble
from lit_credit.rules import BP, FA
from lit_credit.runs.history import read_history
from lit_credit.studies.addition import (
    AdderAnatomy,
    Addition,
    AdditionTask,
    MicroAdder,
    adder_sheet,
)
from lit_credit.studies.addition.findings import adder_findings, adder_tables, draw_probe
from lit_credit.studies.addition.layout import AdditionLayout, place_slots
from lit_credit.studies.addition.model import AdderParts
from lit_credit.tasks import EachMember
from tests.studies.addition.test_model import NETS, make, tokens_of
from tests.support import drawn, events, files, quiet_trainer

SMALL = ["--data.init_args.steps_per_epoch", "10", "--data.init_args.val_size", "50"]
SMALL += ["--data.init_args.val_chains", "2", "--data.init_args.test_size", "50"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


class ByHand(nn.Module):
    """Adds by place value: x + y of the column, and a carry where the column below says so.

    Its attention weighs the column itself by 1 and the one below by a tenth, and what it decodes is
    the carry's weight over that of the column, in tenths: right where the ratio is a tenth.
    """

    def __init__(self, digits=3):
        super().__init__()
        self.layout = AdditionLayout(digits)
        rows, own, leak = place_slots(self.layout)
        self.own = torch.zeros(digits + 2, self.layout.inputs)
        self.own[rows[:, None], own] = 1.0
        self.own[rows[:, None], leak] = 0.1
        self.own[0, [0, digits + 1]] = 1.0
        self.weight = nn.Parameter(torch.zeros(()))

    def parts(self):
        zero = torch.zeros(2, 5)
        points = torch.stack([torch.arange(10.0), torch.zeros(10)], 1)
        gains = {"norm": torch.ones(5)}
        keys = torch.zeros(self.layout.inputs, 4)
        return AdderParts(points, keys, keys, self.own, zero.T, None, None, gains)

    def logits_with(self, tokens, attention):
        layout = self.layout
        sign = torch.ones(layout.inputs)
        sign[layout.z] = -1  # x + y + c_in - z = 10 c_out
        answers = torch.zeros(len(tokens), layout.digits + 2, dtype=torch.long)
        for row in range(layout.digits):
            own = [layout.x.start + row, layout.y.start + row]
            weights = attention[row] / attention[row, own[0]]
            read = (tokens * weights * sign).sum(1)  # the column, and c_out - c_in / 10 of it
            answers[:, row] = (read + 0.15).floor().long() % 10
        last = tokens[:, [layout.digits - 1, 2 * layout.digits, layout.inputs - 2]]
        below = last[:, 0] + last[:, 1] - last[:, 2]
        answers[:, layout.digits] = (below > 0).long()
        return nn.functional.one_hot(answers, 10).float()


def findings(net, ratios=(0.0, 0.05, 0.1, 0.3), n=300, chains=20):
    return adder_findings(net, draw_probe(net.layout, n, chains), ratios, {})


def test_a_net_made_by_hand_adds_at_a_tenth_and_at_no_other_ratio():
    found = findings(ByHand())
    assert found.exact == found.token_accuracy == 1
    torch.testing.assert_close(found.ratio, torch.full((2,), 0.1))
    at = dict(zip([0.0, 0.05, 0.1, 0.3], found.forced.tolist(), strict=True))
    assert at[0.1] == 1
    assert max(at[0.0], at[0.05], at[0.3]) < 0.9
    assert max(found.without.values()) < 0.9
    assert found.runs.tolist() == [1.0] * 4
    assert found.differences[:, 1:].sum() == 0
    assert found.errors[0].tolist()[:2] == [0.0, 0.0]


def test_without_the_column_below_every_error_is_a_missed_carry():
    net = ByHand()
    rows, _, leak = place_slots(net.layout)
    net.own[rows[:, None], leak] = 0
    found = findings(net)
    wrong = found.differences.clone()
    wrong[:, 0] = 0
    assert wrong[1, 9] == wrong.sum() > 50  # one too low, where a carry came in
    assert found.errors[1:3, 1].tolist() == [0.0, 0.0]
    assert found.errors[1:3, 2].tolist() == [1.0, 1.0]
    assert found.runs[0] == 1
    assert found.runs[2:].tolist() == [0.0, 0.0]


def test_the_probe_has_chains_of_every_length_and_is_always_the_same():
    layout = AdditionLayout(4)
    one, other = draw_probe(layout, 50, 5), draw_probe(layout, 50, 5)
    assert torch.equal(one.tokens, other.tokens)
    assert one.tokens.shape == (50 + 4 * 5, layout.length)
    x, y, z = layout.decode(one.tokens)
    assert torch.equal(x + y, z)


@pytest.mark.parametrize("name", NETS)
def test_the_net_with_its_own_attention_forced_on_it_is_the_net(name):
    net = make(name, fast=False)
    tokens = tokens_of(net, 5)
    parts = net.parts()
    torch.testing.assert_close(net.logits_with(tokens, parts.attention), net(tokens)[:, -12:])
    seen = []
    hook = net.block.attention.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(tokens)
    hook.remove()
    q, k = net.block.attention.queries_and_keys(seen[0][0, :, 2:])
    torch.testing.assert_close(parts.queries, q)
    torch.testing.assert_close(parts.keys, k)
    if parts.read is not None:
        product = torch.outer(parts.write, net.head.weight @ parts.read)
        torch.testing.assert_close(parts.output, product * net.block.norm1.weight[:2])
    assert len(parts.gains) == (3 if name == "wide" else 1)


@pytest.mark.few(3)
@pytest.mark.parametrize("name", NETS)
def test_every_variant_has_a_sheet_trained_or_not(name):
    for net in (MicroAdder(**NETS[name]), make(name).float()):
        figure = drawn(adder_sheet(findings(net, n=20, chains=1), []))
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert [title.split()[0] for title in titles if title] == [str(i) for i in range(1, 7)]


def test_the_sheet_is_read_at_the_width_of_a_page():
    """700 pixels: no letter is lower than 9 of them, and no title runs into the next panel."""
    values = [{f"adder/{tag}": i / 3 for tag in ("exact", "token_accuracy")} for i in range(4)]
    rows = [{"step": i, "epoch": i, "name": "", "values": v} for i, v in enumerate(values)]
    figure = adder_sheet(findings(make("wide").float()), rows)
    FigureCanvasAgg(figure).draw()
    pixels_a_point = 700 / (72 * figure.get_figwidth())
    texts = [t for t in figure.findobj(Text) if t.get_text().strip()]
    assert min(text.get_fontsize() for text in texts) * pixels_a_point > 9
    titles = [ax._left_title.get_window_extent() for ax in figure.axes if ax.get_title(loc="left")]
    assert len(titles) == 6
    for left, right in zip(titles[::2], titles[1::2], strict=True):
        assert left.x1 < right.x0
        assert right.x1 <= figure.bbox.width


def test_every_number_of_a_measurement_is_in_a_table():
    for net in (ByHand(), make("67p").float(), make("wide").float()):
        found = findings(net)
        tables = adder_tables(found)
        assert [len(tables[name]) for name in ("digits", "positions", "differences")] == [
            10,
            found.layout.inputs,
            10,
        ]
        points = [[row["feature_1"], row["feature_2"]] for row in tables["digits"]]
        assert points == found.parts.digits.tolist()
        assert [row["read"] for row in tables["digits"]] == pytest.approx(
            found.readout.values.tolist(), nan_ok=True
        )
        keys = [[v for k, v in row.items() if "key" in k] for row in tables["positions"]]
        queries = [[v for k, v in row.items() if "query" in k] for row in tables["positions"]]
        assert keys == found.parts.keys.tolist()
        assert queries == found.parts.queries.tolist()
        counts = [[row["no_carry"], row["carry"]] for row in tables["differences"]]
        assert counts == found.differences.T.tolist()
        features = {row["what"]: list(row.values())[1:] for row in tables["features"]}
        for name, gain in found.parts.gains.items():
            assert features[f"gain of {name}"] == gain.tolist()


def test_sums_of_one_digit_have_no_ratio(tmp_path):
    figure = adder_sheet(findings(MicroAdder(digits=1), n=20, chains=1), [])
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts.count("n/a") >= 3  # ratio, forced ratio, training
    rule, callback = (
        BP(MicroAdder(digits=1), AdditionTask(1)),
        AdderAnatomy(n_samples=20, figure=False),
    )
    fit(tmp_path, rule, callback, digits=1)
    values = callback.history.rows[-1]["values"]
    assert math.isnan(values["adder/ratio/mean"])


def fit(folder, rule, *callbacks, digits=2):
    data = Addition(digits, 8, 3, val_size=9, val_chains=2, test_size=9, test_chains=2, seed=0)
    trainer = quiet_trainer(max_epochs=2, default_root_dir=folder, callbacks=list(callbacks))
    trainer.fit(rule, datamodule=data)
    return trainer, data


def test_the_rows_are_those_of_the_net_at_that_time(tmp_path):
    rule, callback = (
        BP(MicroAdder(digits=2), AdditionTask(2)),
        AdderAnatomy(n_samples=50, figure=False),
    )
    fit(tmp_path, rule, callback)
    rows = read_history(tmp_path / "adder_anatomy.jsonl")
    assert [row["step"] for row in rows] == [0, 3, 6]
    probe = draw_probe(rule.net.layout, 50, 100)
    right = (rule.net(probe.tokens[:50, :-1]).argmax(-1) == probe.tokens[:50, 6:]).float()
    last = rows[-1]["values"]
    assert last["adder/exact"] == pytest.approx(float(right.all(1).float().mean()))
    assert last["adder/token_accuracy"] == pytest.approx(float(right.mean()))
    for place in range(3):
        assert last[f"adder/error/Z0{place}"] == pytest.approx(1 - float(right[:, place].mean()))
    attention = rule.net.parts().attention[1].detach()
    ratio = attention[[0, 3, 6]].mean() / attention[[1, 4]].mean()
    assert last["adder/ratio/Z01"] == last["adder/ratio/mean"] == pytest.approx(float(ratio))
    tags = {tag.split("/")[1] for tag in last}
    assert tags == {
        *("exact", "token_accuracy", "error", "off_by_one", "carry_errors"),
        *("run", "ratio", "forced", "without", "linearity"),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("adder")
    words = ["fit", "--config", "configs/addition/67p.yaml", *SMALL]
    words += ["--trainer.max_epochs", "2", "--trainer.default_root_dir", str(root)]
    assert main(words) == 0
    return root / "BP" / "seed_42"


@pytest.mark.few(1)
def test_a_checkpoint_is_looked_at_from_the_command_line(run):
    checkpoint = run / "checkpoints" / "last.ckpt"
    words = ["test", "--config", "configs/addition/67p.yaml", *SMALL]
    words += ["--ckpt_path", str(checkpoint), "--trainer.default_root_dir"]
    before = {name: (run / name).read_bytes() for name in files(run)}
    assert main([*words, str(run.parent.parent)]) == 0
    assert before == {name: (run / name).read_bytes() for name in before}
    folder = run / "test"
    names = ("columns", "runs", "sources", "forced", "differences", "digits", "positions")
    tables = {f"adder_anatomy_{name}.csv" for name in (*names, "features")}
    assert tables | {"figures/adder_anatomy.png"} <= set(files(folder))
    logged = events(folder)
    assert logged.Images("adder/figure")[0].step == 20
    last = read_history(run / "adder_anatomy.jsonl")[-1]
    assert last["step"] == 20
    (row,) = read_history(folder / "adder_anatomy.jsonl")
    assert row["values"] == pytest.approx(last["values"], nan_ok=True)
    assert (row["step"], row["epoch"]) == (20, 2)
    (point,) = logged.Scalars("adder/token_accuracy")
    assert point.value == pytest.approx(last["values"]["adder/token_accuracy"])
    with (folder / "adder_anatomy_columns.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["answer"] for line in lines] == [f"Z{i}" for i in range(11)]
    assert float(lines[3]["ratio"]) == pytest.approx(last["values"]["adder/ratio/Z03"])
    assert lines[0]["ratio"] == lines[0]["error_carry"] == ""


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_drawn_over_training_comes_from_the_checkpoint_or_from_its_folder(
    run, tmp_path, alone
):
    """The callback's state is in the checkpoint; without it the files are read."""
    checkpoint = run / "checkpoints" / "last.ckpt"
    if alone:
        found = torch.load(checkpoint, weights_only=True)
        found["callbacks"] = {k: v for k, v in found["callbacks"].items() if "Adder" not in k}
        checkpoint = tmp_path / "members" / "M00_seed42.ckpt"
        checkpoint.parent.mkdir()
        torch.save(found, checkpoint)
        rows = (run / "metrics.jsonl").read_text().replace("val/exact", "val/exact/M00")
        (tmp_path / "metrics.jsonl").write_text(rows)
    config = yaml.safe_load((run / "config.yaml").read_text())
    options = config["model"]["init_args"]["net"]["init_args"]
    arguments = next(c for c in config["trainer"]["callbacks"] if "Adder" in c["class_path"])
    drawn = []

    class Drawn(AdderAnatomy):
        def draw(self, rows, section):
            drawn.extend(rows)

    Drawn.__name__ = Drawn.__qualname__ = "AdderAnatomy"  # its state is found by these
    callback = Drawn(**arguments["init_args"])
    rule = BP(MicroAdder(**options), AdditionTask())
    trainer = quiet_trainer(default_root_dir=tmp_path, callbacks=[callback])
    data = Addition(test_size=9, test_chains=2)
    trainer.test(rule, datamodule=data, ckpt_path=str(checkpoint), verbose=False)
    steps = [row["step"] for row in drawn]
    assert (steps[0], steps[-1]) == (0, 20)
    assert steps == sorted(set(steps))
    assert all("adder/exact" in row["values"] for row in drawn)
    assert ("adder/ratio/mean" in drawn[0]["values"]) == (not alone)
    assert [row["step"] for row in callback.history.rows] == [20]


def test_after_fit_a_test_looks_at_the_net_as_it_is(tmp_path):
    rule, callback = (
        FA(MicroAdder(digits=2), AdditionTask(2)),
        AdderAnatomy(n_samples=20, figure=False),
    )
    trainer, data = fit(tmp_path, rule, callback)
    steps = [row["step"] for row in callback.history.rows]
    text = (tmp_path / "adder_anatomy.jsonl").read_text()
    trainer.test(rule, datamodule=data, verbose=False)
    assert [row["step"] for row in callback.history.rows] == steps
    assert (tmp_path / "adder_anatomy.jsonl").read_text() == text
    (row,) = read_history(tmp_path / "test" / "adder_anatomy.jsonl")
    assert row["step"] == steps[-1]


def test_a_reference_is_drawn_beside(run, tmp_path):
    rule = BP(MicroAdder(norm="separate"), AdditionTask())
    callback = AdderAnatomy(n_samples=20, reference=str(run / "checkpoints" / "last.ckpt"))
    fit(tmp_path, rule, callback, digits=10)
    gain = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, found in callback.findings.reference.items():
        assert torch.equal(found, gain[f"net.{name}.weight"])
    assert len(callback.findings.reference) == 3
    with pytest.raises(FileNotFoundError, match=r"`reference` is 'none\.ckpt', which does not"):
        fit(tmp_path, rule, AdderAnatomy(reference="none.ckpt"), digits=10)
    longer = {f"net.{name}.weight": torch.ones(7) for name in callback.findings.reference}
    for state, says in (({}, "no tensors by name"), (longer, "has no weights of .* that fit")):
        torch.save({"state_dict": state}, tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match=f"`reference`.*{says}"):
            fit(tmp_path, rule, AdderAnatomy(reference=str(tmp_path / "other.ckpt")), digits=10)
    torch.save([], tmp_path / "list.ckpt")
    with pytest.raises(
        ValueError, match=r"`reference`: .*list\.ckpt.* no checkpoint: .* holds a list"
    ):
        fit(tmp_path, rule, AdderAnatomy(reference=str(tmp_path / "list.ckpt")), digits=10)


def test_an_ensemble_is_refused_with_the_remedy(tmp_path):
    net = Ensemble(lambda: MicroAdder(digits=2), members=2, first_seed=0)
    rule = BP(net, EachMember(AdditionTask(2), 2))
    with pytest.raises(MisconfigurationException, match="checkpoint of a member"):
        fit(tmp_path, rule, AdderAnatomy())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"n_chains": 0}, "n_chains"),
        ({"ratios": []}, "ratios"),
        ({"ratios": [-0.1]}, r"ratios\[0\]"),
    ],
)
def test_bad_arguments_are_named(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        AdderAnatomy(**arguments)

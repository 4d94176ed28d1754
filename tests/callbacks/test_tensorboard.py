"""What TensorBoard is given, read back from the event file."""

import math
import re

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.plugins.custom_scalar import layout_pb2

from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    CreditAlignment,
    CreditFunction,
    GradientNoise,
    GradientNorms,
    HeadBehaviour,
    LayerProbes,
    ReferenceValidity,
    Representations,
    ResidualNorms,
    ScaleStability,
    Sharpness,
    SignalRank,
    SoftmaxJacobian,
    WeightAlignment,
)
from lit_credit.rules import FA
from lit_credit.runs.history import read_history
from tests import support
from tests.callbacks.test_contract import counted

KINDS = [
    AttentionMaps,
    CircuitMatching,
    CreditAlignment,
    CreditFunction,
    GradientNoise,
    GradientNorms,
    HeadBehaviour,
    LayerProbes,
    ReferenceValidity,
    Representations,
    ResidualNorms,
    ScaleStability,
    SignalRank,
    Sharpness,
    SoftmaxJacobian,
    WeightAlignment,
]
LAYOUT = "custom_scalars__config__"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rows = {GradientNoise: 32}  # of 7 rows, no scale is defined
    callbacks = [
        *(kind(**counted(kind, rows.get(kind, 7))) for kind in KINDS),
        ResidualNorms(every_n_steps=5),
    ]
    trainer = support.trainer(folder, *callbacks)
    trainer.fit(support.rule(FA, support.SymbolNet), support.train_loader(), support.val_loader())
    trainer.logger.experiment.flush()
    return folder, support.events(folder), callbacks


def test_scalars_are_those_of_the_histories_at_their_steps(run):
    folder, events, callbacks = run
    histories = [f"{kind.name}.jsonl" for kind in KINDS] + ["residual_norms-1.jsonl"]
    seen = set()
    for name in histories:
        rows = read_history(folder / name)
        callback = next(one for one in callbacks if one.name == rows[0]["name"])
        for tag in callback.logged(rows[0]["values"]):
            expected = [
                (row["step"], row["values"][tag])
                for row in rows
                if math.isfinite(row["values"][tag])
            ]
            if expected:
                found = [(event.step, event.value) for event in events.Scalars(tag)]
                assert found == [(step, pytest.approx(value)) for step, value in expected]
                seen.add(tag)
    assert {"residual/norm/L00", "residual-1/norm/L02", "gradient/norm/L02"} <= seen
    heads = {
        f"{q}/embed.3.attention/H01"
        for q in ("jacobian/r_off", "attention/entropy", "behaviour/induction")
    }
    assert heads <= seen
    assert {
        "credit/cosine/L00",
        "function/rho/L00",
        "weight/angle/head",
        "stability/growth",
    } <= seen
    assert all(tag.count("/") >= 1 for tag in seen)


def test_one_layout_covers_all_diagnostics(run):
    folder, events, callbacks = run
    (event,) = events.Tensors(LAYOUT)
    layout = layout_pb2.Layout()
    layout.ParseFromString(event.tensor_proto.string_val[0])
    categories = {category.title: category for category in layout.category}
    sections = {callback.section for callback in callbacks} | {"residual-1"}
    assert set(categories) == {"val", *sections}
    assert layout.category[0].title == "val"  # what runs are compared by is on the first screen
    undefined = {tag for file in folder.glob("*.jsonl") for tag in read_history(file)[0]["values"]}
    scalars = {*events.Tags()["scalars"], *undefined}
    for category in layout.category:
        for chart in category.chart:
            for pattern in chart.multiline.tag:
                hits = [tag for tag in scalars if re.match(pattern, tag)]
                assert hits, pattern
                assert {tag.split("/")[0] for tag in hits} == {category.title}
    patterns = [p for c in categories["credit"].chart for p in c.multiline.tag]
    assert sum(bool(re.match(p, "credit/cosine/L00")) for p in patterns) == 1


def test_a_figure_of_each_goes_to_tensorboard_and_to_the_folder(run):
    folder, events, _ = run
    names = {f"{kind.name}.png" for kind in KINDS} | {"residual_norms-1.png"}
    names |= {"circuit_matching_pairs.png"}
    assert {path.name for path in (folder / "figures").iterdir()} == names
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in (folder / "figures").iterdir())
    tags = {f"{kind.section}/figure" for kind in KINDS} | {"residual-1/figure"}
    tags |= {"circuits/pairs"}
    assert set(events.Tags()["images"]) == tags
    assert [event.step for event in events.Images("residual/figure")] == [12]


def test_figures_can_be_left_out(tmp_path):
    trainer = support.trainer(tmp_path, ResidualNorms(figure=False), max_epochs=1)
    trainer.fit(support.rule(FA, support.SymbolNet), support.train_loader(), support.val_loader())
    assert not (tmp_path / "figures").exists()


def test_a_tag_says_what_it_measures_and_which_module_its_layer_is(run):
    _, events, callbacks = run
    sections = {callback.tag_prefix for callback in callbacks}
    described = {
        tag: events.SummaryMetadata(tag).summary_description
        for tag in events.Tags()["scalars"]
        if tag.partition("/")[0] in sections
    }
    assert all(described.values())
    norms = type(callbacks[0]).__name__
    assert all(norms in described[t] for t in described if t.startswith(f"{callbacks[0].section}/"))
    assert "L01: output of blocks.0." in described["credit/cosine/L01"]
    assert "L00: input of blocks.0." in described["residual/norm/L00"]
    assert events.SummaryMetadata("noise/scale").plugin_data.plugin_name == "scalars"
    assert "L00" not in described["stability/growth"]


def test_a_logger_with_a_prefix_gets_described_tags_below_it(tmp_path):
    logger = TensorBoardLogger(tmp_path, prefix="mine")
    trainer = support.trainer(tmp_path, ResidualNorms(), max_epochs=1, logger=logger)
    trainer.fit(support.rule(FA, support.SymbolNet), support.train_loader(), support.val_loader())
    logger.experiment.flush()
    events = support.events(logger.log_dir)
    tags = [tag for tag in events.Tags()["scalars"] if "residual" in tag]
    assert tags
    for tag in tags:
        assert tag.startswith("mine-residual/norm/L0")
        assert events.SummaryMetadata(tag).summary_description
        assert len(events.Scalars(tag)) == 2

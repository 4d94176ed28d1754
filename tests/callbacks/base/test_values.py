"""What loggers get of many heads, and what the history has."""

import math

import pytest
import torch

from lit_credit.callbacks import AttentionMaps
from lit_credit.callbacks.base.values import MOST_HEADS, MOST_LAYERS, of_all_layers, of_layers
from lit_credit.datamodules import TensorLoader
from lit_credit.models import GPT
from lit_credit.rules import BP
from lit_credit.tasks import NextToken
from tests import support


def heads(count, layers, quantity="entropy"):
    return {
        f"attention/{quantity}/blocks.{layer}/H{head:02d}": 10.0 * layer + head
        for layer in range(layers)
        for head in range(count)
    }


@pytest.mark.parametrize(("count", "layers"), [(1, 1), (8, 8), (64, 1), (1, 64)])
def test_as_many_heads_as_studies_have_stay(count, layers):
    assert count * layers <= MOST_HEADS
    tagged = heads(count, layers) | heads(count, layers, "margin") | {"attention/best": 1.0}
    assert of_layers(tagged, ["mean"]) == tagged


@pytest.mark.parametrize(("count", "layers"), [(65, 1), (12, 12), (5, 13), (120, 1)])
def test_of_more_each_layer_has_its_aggregates(count, layers):
    tagged = heads(count, layers) | {"attention/best": 1.0}
    found = of_layers(tagged, ["mean", "max", "min"])
    assert len(found) == 3 * layers + 1
    assert found["attention/best"] == 1.0
    for layer in range(layers):
        place = f"attention/entropy/blocks.{layer}"
        assert found[f"{place}/mean"] == pytest.approx(10 * layer + (count - 1) / 2)
        assert found[f"{place}/max"] == 10 * layer + count - 1
        assert found[f"{place}/min"] == 10 * layer


def layers(count, quantity="rho"):
    return {f"function/{quantity}/L{layer:02d}": float(layer) for layer in range(count)}


def test_few_layers_stay_and_many_have_their_aggregates():
    few = layers(MOST_LAYERS) | {"function/share": 1.0}
    assert of_all_layers(few, ["min", "max"]) == few
    many = layers(48) | layers(48, "ratio") | {"function/share": 1.0}
    many["function/ratio/L03"] = math.nan
    assert of_all_layers(many, None) == many
    assert of_all_layers(many, []) == {"function/share": 1.0}
    assert of_all_layers(many, ["min", "median", "max"]) == {
        "function/rho/min": 0.0,
        "function/rho/median": 23.5,
        "function/rho/max": 47.0,
        "function/ratio/min": 0.0,
        "function/ratio/median": 24.0,
        "function/ratio/max": 47.0,
        "function/share": 1.0,
    }
    undefined = dict.fromkeys(layers(17), math.nan)
    assert math.isnan(of_all_layers(undefined, ["median"])["function/rho/median"])


def test_undefined_heads_do_not_take_the_others_answer():
    tagged = heads(13, 5)
    tagged["attention/entropy/blocks.1/H03"] = math.nan
    tagged |= {tag: math.nan for tag in tagged if "blocks.2" in tag}
    found = of_layers(tagged, ["mean"])
    others = [h for h in range(13) if h != 3]
    assert found["attention/entropy/blocks.1/mean"] == pytest.approx(10 + sum(others) / 12)
    assert math.isnan(found["attention/entropy/blocks.2/mean"])


def test_a_run_logs_layers_and_its_history_has_the_heads(tmp_path):
    module = BP(GPT(7, 4, depth=5, heads=16, width=16), NextToken())
    callback = AttentionMaps(figure=False)
    tokens = torch.randint(7, (2, 8, 4), generator=torch.Generator().manual_seed(0))
    loaders = [TensorLoader(list(tokens), batch_size=8, seed=0) for _ in range(2)]
    trainer = support.fit(tmp_path, module, callback, loaders=loaders)
    values = callback.history.rows[-1]["values"]
    assert len(values) == 80
    layers = {f"attention/entropy/blocks.{layer}.attention.heads/mean" for layer in range(5)}
    scalars = support.events(tmp_path)
    tags = scalars.Tags()["scalars"]
    assert {tag for tag in tags if tag.startswith("attention/entropy")} == layers
    mean = sum(v for tag, v in values.items() if "blocks.3" in tag) / 16
    tag = "attention/entropy/blocks.3.attention.heads/mean"
    assert scalars.Scalars(tag)[-1].value == pytest.approx(mean, rel=1e-5)
    # Both can be watched.
    assert {tag, f"{tag.removesuffix('mean')}H07"} <= set(trainer.callback_metrics)

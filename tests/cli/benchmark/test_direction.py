"""Whether large or small values of a metric are better: who declares it, and who is refused."""

from dataclasses import replace

import pytest
import yaml
from torch import nn
from torchmetrics import MeanMetric, Metric

from lit_credit.cli import main
from lit_credit.cli.benchmark.direction import find_direction, known_direction
from lit_credit.cli.benchmark.suites import read_suite
from lit_credit.headlines import Headline
from lit_credit.tasks import Supervised

SUITE = read_suite("digits")
TOP5 = {"class_path": "torchmetrics.classification.MulticlassAccuracy"}
TOP5["init_args"] = {"num_classes": 10, "top_k": 5}
HERE = __name__


class Undirected(Supervised):
    """A task with a metric of which nobody knows what is better."""

    def __init__(self) -> None:
        super().__init__(nn.MSELoss())

    def metrics(self) -> dict[str, Metric]:
        return {"spread": MeanMetric()}


class Directed(Undirected):
    headline = (Headline("spread", better="down"),)


class Opposite(Undirected):
    headline = (Headline("dispersion", tag="spread", better="up"),)


class Unbuildable(Undirected):
    def __init__(self) -> None:
        raise RuntimeError("not today")


def task(name, **arguments):
    return {"class_path": name, "init_args": arguments}


def classification(**arguments):
    return task("lit_credit.tasks.Classification", num_classes=10, **arguments)


def direction(metric, *tasks, better=""):
    suite = replace(SUITE, metric=metric, better=better)
    return find_direction(suite, {f"t{index}": one for index, one in enumerate(tasks)})


NEXT = task("lit_credit.tasks.NextToken")
COPYING = task("lit_credit.studies.copying.PatternCopying")
MAE = task(
    "lit_credit.tasks.Supervised",
    loss={"class_path": "torch.nn.MSELoss"},
    metrics={
        "mae": {"class_path": "torchmetrics.MeanAbsoluteError"},
        "r2": {"class_path": "torchmetrics.R2Score"},
    },
)


@pytest.mark.parametrize(
    ("metric", "task", "expected"),
    [
        ("accuracy", classification(), "up"),
        ("accuracy/ood", classification(), "up"),
        ("loss", classification(), "down"),
        ("top5", classification(metrics={"top5": TOP5}), "up"),
        ("loss", NEXT, "down"),
        ("perplexity", NEXT, "down"),
        ("perplexity/ood", NEXT, "down"),
        ("bits_per_character", NEXT, "down"),
        ("id_error", COPYING, "down"),
        ("ood_error", COPYING, "down"),
        ("loss", COPYING, "down"),
        ("mae", MAE, "down"),
        ("r2", MAE, "up"),
        ("perplexity/M01", task("lit_credit.tasks.EachMember", task=NEXT, members=2), "down"),
        ("spread", task(f"{HERE}.Directed"), "down"),
        ("spread", task(f"{HERE}.Opposite"), "up"),
        ("loss", task(f"{HERE}.Unbuildable"), "down"),
        ("accuracy", task(f"{HERE}.Unbuildable"), "up"),
    ],
)
def test_a_headline_or_the_metric_declares_the_direction(metric, task, expected):
    assert direction(metric, task) == expected


def test_the_suite_declares_what_no_headline_does():
    spread = task(f"{HERE}.Undirected")
    assert direction("spread", spread, better="up") == "up"
    assert direction("spread", spread, better="down") == "down"
    assert direction("spread", spread, task(f"{HERE}.Directed"), better="down") == "down"
    assert direction("logged_elsewhere", NEXT, better="down") == "down"


@pytest.mark.parametrize(
    ("metric", "tasks", "better", "expected"),
    [
        ("spread", ["Undirected"], "", "`metric` is 'spread', and neither Undirected .*'t0'.*up"),
        ("spread", ["Unbuildable"], "", "Unbuildable of task 't0' cannot be built.* not today"),
        ("spred", ["Undirected"], "", "'spred', which Undirected .* Expected one of loss, spread"),
        ("accuracy", ["Undirected"], "", "'accuracy', which Undirected .* does not have"),
        ("spread", ["Directed"], "up", "`better` is 'up', but Directed .* small .* Remove"),
        ("spread", ["Directed", "Opposite"], "", "small in 't0', large in 't1'.* one direction"),
    ],
)
def test_what_nobody_or_two_declare_is_refused(metric, tasks, better, expected):
    with pytest.raises(ValueError, match=expected):
        direction(metric, *(task(f"{HERE}.{name}") for name in tasks), better=better)


def test_results_know_the_metrics_that_lit_credit_declares():
    names = ["loss", "accuracy", "accuracy/ood", "id_error"]
    assert [known_direction(name) for name in names] == ["down", "up", "up", "down"]
    with pytest.raises(ValueError, match=r"`metric` is 'perplexity'.* Expected `better`"):
        known_direction("perplexity")


def own(folder, **change):
    """A suite of NextToken; ``accuracy`` is no metric of it."""
    net = {"class_path": "GPT", "init_args": {"vocab_size": 96, "block_size": 16, "width": 16}}
    made = {
        "studies": 1,
        "trials": 1,
        "seeds": [1],
        "rules": ["BP"],
        "tasks": {
            "t": {"model": {"init_args": {"task": "NextToken", "net": net}}, "data": "CharText"}
        },
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**made, **change}))
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "`metric` is 'accuracy', which NextToken of task 't' does not have"),
        ({"metric": "perplexty"}, "Expected one of loss, bits_per_character, perplexity"),
        ({"metric": "loss", "better": "up"}, "declares that small values are better"),
        ({"better": "small"}, "`better` is 'small'. Expected `up`"),
        ({"better": ["up"]}, "`better` is ['up']. Expected `up`"),
    ],
)
def test_the_command_refuses_before_any_run(tmp_path, capsys, change, expected):
    out = tmp_path / "out"
    assert main(["benchmark", "--suite", str(own(tmp_path, **change)), "--out", str(out)]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.rglob("log.txt"))


def test_a_shipped_suite_does_not_need_to_say_it():
    assert read_suite("char_gpt").better == ""
    assert direction(read_suite("char_gpt").metric, NEXT) == "down"

"""Configurations that earlier versions wrote."""

import pytest
import torch
import yaml
from jsonargparse import capture_parser

from lit_credit.cli import main, run
from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.older_configs import of_today, with_new_defaults
from lit_credit.datamodules import Digits
from lit_credit.rules.checkpoints.described import describe_data
from lit_credit.rules.checkpoints.differences import differences, saved_with
from tests.cli.parsed import with_value

KINDS = ["WeightAlignment", "CircuitMatching", "ExactDivergence", "ResidualNorms"]


def parsed(kind, **given):
    """The one callback of a ``config.yaml`` in which every diagnostic had the same arguments."""
    empty = {"every_n_epochs": 2, "n_samples": None, "units": None, "figure": True, "loss": None}
    entry = {"class_path": f"lit_credit.callbacks.{kind}", "init_args": empty | given}
    text = yaml.safe_dump(with_value("trainer.callbacks", [entry]))
    parser = capture_parser(lambda: run(["fit"]))
    return parser.parse_args(["fit", f"--config={text}"]).fit.trainer.callbacks[0].init_args


@pytest.mark.parametrize("kind", KINDS)
def test_empty_arguments_that_a_diagnostic_no_longer_has_are_left_out(kind):
    assert parsed(kind).every_n_epochs == 2


def test_a_value_for_one_of_them_is_refused():
    with pytest.raises(ArgumentsError, match="'n_samples' is not accepted"):
        parsed("WeightAlignment", n_samples=7)


# Data of a version without a validation split

BASE = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
BASE += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=1"]
BASE += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
BASE += ["--trainer.enable_model_summary=false", "--trainer.limit_train_batches=4"]
BASE += ["--trainer.callbacks+=GradientNorms"]
NEW = ("val_split", "split_seed")
ZERO = "--data.init_args.val_split=0"


def without_split(data):
    data["init_args"] = {k: v for k, v in data["init_args"].items() if k not in NEW}


def fit(folder, *words, epochs=1):
    place = [f"--trainer.default_root_dir={folder}", f"--trainer.max_epochs={epochs}"]
    return main([*BASE, *place, *words])


def rows(folder, name="metrics"):
    return (folder / "BP" / "seed_42" / f"{name}.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs that validates on the test data."""
    folder = tmp_path_factory.mktemp("whole")
    assert fit(folder, ZERO, epochs=2) == 0
    return folder


@pytest.fixture
def older(tmp_path):
    """A run of one epoch, with the files that a version without a validation split wrote."""
    assert fit(tmp_path, ZERO) == 0
    folder = tmp_path / "BP" / "seed_42"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    without_split(config["data"])
    del config["test_after_fit"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    without_split(checkpoint["configuration"]["data"])
    torch.save(checkpoint, path)
    return tmp_path


def test_its_config_goes_on_with_its_data(older, whole):
    config = f"--config={older}/BP/seed_42/config.yaml"
    assert main(["fit", config, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 0
    assert rows(older) == rows(whole)
    assert not (older / "BP" / "seed_42" / "test.jsonl").exists()
    new = yaml.safe_load((older / "BP" / "seed_42" / "config-1.yaml").read_text())
    assert new["data"]["init_args"]["val_split"] == 0


def test_a_configuration_with_the_new_default_is_refused(older, whole, capsys):
    assert fit(older, "--ckpt_path=last", epochs=2) == 1
    assert "data.val_split 0.0 there, 0.1 here" in capsys.readouterr().err
    assert fit(older, "--ckpt_path=last", "--on_resume=checkpoint", epochs=2) == 0
    assert rows(older) == rows(whole)


def test_the_new_default_can_be_chosen(older, whole):
    with pytest.warns(UserWarning, match="the data are not those that this run began with"):
        assert fit(older, "--ckpt_path=last", "--on_resume=configured", epochs=2) == 0
    assert rows(older) != rows(whole)
    assert (older / "BP" / "seed_42" / "test.jsonl").exists()


def test_in_python_it_is_refused_too(older):
    path = older / "BP" / "seed_42" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    now = checkpoint["configuration"] | {"data": describe_data(Digits())}
    found = differences(saved_with(checkpoint, now), now, {}, {})
    assert [str(one) for one in found] == ["data.val_split 0.0 there, 0.1 here"]
    now["data"] = describe_data(Digits(val_split=0))
    assert not differences(saved_with(checkpoint, now), now, {}, {})


def test_diagnose_measures_on_its_data(older):
    assert main(["diagnose", f"--config={older}/BP/seed_42/config.yaml"]) == 0
    found = (older / "BP" / "seed_42" / "diagnose" / "gradient_norms.jsonl").read_bytes()
    assert rows(older, "gradient_norms").endswith(found)
    assert found


def sweep_of_one(folder):
    """The words of a sweep with a single run."""
    (folder / "base.yaml").write_text("data: Digits\n")
    (folder / "grid.yaml").write_text("seed_everything: [42]\n")
    named = {"config": "base.yaml", "grid": "grid.yaml", "out": "table.csv"}
    words = ["sweep", *(f"--{name}={folder / file}" for name, file in named.items())]
    return [*words, *BASE[1:], "--trainer.max_epochs=1"]


def test_a_sweep_of_it_goes_on_without_the_split_only(tmp_path, capsys):
    words = sweep_of_one(tmp_path)
    assert main([*words, ZERO]) == 0
    (asked,) = tmp_path.rglob("asked.yaml")
    config = yaml.safe_load(asked.read_text())
    assert "test_after_fit" not in config
    without_split(config["data"])
    asked.write_text(yaml.safe_dump(config, sort_keys=False))
    assert main([*words, ZERO]) == 0
    assert "1 of them finished before" in capsys.readouterr().out
    assert main(words) == 2
    assert "data.init_args.val_split: 0.0, and 0.1 is asked for" in capsys.readouterr().err


def residual(**given):
    net = {"class_path": "lit_credit.models.ResidualMLP", "init_args": {"in_features": 64, **given}}
    return {"model": {"class_path": "lit_credit.rules.BP", "init_args": {"net": net}}}


def test_arguments_that_classes_got_since_are_at_their_defaults():
    """``norm`` of ResidualMLP came later; it was a layer norm before."""
    saved, wanted = residual(depth=4), residual(depth=4, norm="layer")
    assert with_new_defaults(saved, wanted) == wanted
    for other in (residual(depth=4, norm="batch"), residual(depth=3, norm="layer")):
        assert with_new_defaults(saved, other) != other
    assert with_new_defaults(residual(), residual(made_up=1)) == residual()
    assert with_new_defaults([saved], [wanted, wanted]) == [saved]


def test_a_sweep_of_before_goes_on_where_a_class_got_an_argument(tmp_path, capsys):
    words = sweep_of_one(tmp_path)
    assert main(words) == 0
    (asked,) = tmp_path.rglob("asked.yaml")
    config = yaml.safe_load(asked.read_text())
    net = config["model"]["init_args"]["net"]["init_args"]
    del net["norm"]
    asked.write_text(yaml.safe_dump(config, sort_keys=False))
    capsys.readouterr()
    assert main(words) == 0
    assert "1 of them finished before" in capsys.readouterr().out


def test_what_a_person_wrote_has_todays_defaults():
    config = {"data": {"class_path": "lit_credit.datamodules.Digits", "init_args": {"seed": 1}}}
    assert of_today(config | {"trainer": {"max_epochs": 1}})["data"] == config["data"]
    written = {"trainer": {"barebones": False, "fast_dev_run": False, "num_nodes": 1}}
    assert of_today(config | written)["data"]["init_args"]["val_split"] == 0
    given = {"class_path": "lit_credit.datamodules.Digits", "init_args": {"val_split": 0.2}}
    assert of_today({"data": given} | written)["data"]["init_args"]["val_split"] == 0.2
    folder = {"root": "pictures", "val_fraction": 0.2}
    images = {"class_path": "lit_credit.datamodules.ImageFolder", "init_args": folder}
    added = {"val_split": 0.0, "split_seed": 0}
    assert of_today({"data": images} | written)["data"]["init_args"] == folder | added
    foreign = {"class_path": "lit_credit.datamodules.CharText", "init_args": {}}
    assert of_today({"data": foreign} | written)["data"] == foreign

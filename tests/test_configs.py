"""Every YAML in configs/ runs from the command line."""

from pathlib import Path

import pytest
import torch

from lit_credit.cli import main
from lit_credit.cli.sweep.grid import as_word, read_grid
from lit_credit.cli.sweep.plan import asked_configuration
from lit_credit.datamodules import CIFAR10, MNIST

# Their net has no size of its own; with that of the class it is run once.
SMALL_GPT = [
    *("--model.init_args.net.init_args.width", "32"),
    *("--model.init_args.net.init_args.depth", "2"),
    *("--model.init_args.net.init_args.block_size", "32"),
    *("--data.init_args.block_size", "32"),
]
LIKE_BP = Path("configs/softmax_jacobian")
GRIDS = sorted(Path("configs").rglob("*.grid.yaml"))
CONFIGS = sorted(set(Path("configs").rglob("*.yaml")) - set(GRIDS))


def fake_read(self, train):
    generator = torch.Generator().manual_seed(int(train))
    images = torch.randint(256, (64, *self.shape), generator=generator, dtype=torch.uint8)
    return images, torch.arange(64) % 10


@pytest.mark.few(16)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_config_runs(config, monkeypatch, tmp_path, capsys):
    for data in (CIFAR10, MNIST):
        monkeypatch.setattr(data, "prepare_data", lambda self: None)
        monkeypatch.setattr(data, "read", fake_read)
    args = ["fit", "--config", str(config), "--trainer.fast_dev_run", "2"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    if config.parent == LIKE_BP and config.stem != "bp":
        args += SMALL_GPT
    assert main(args) == 0, capsys.readouterr().err
    assert not [*tmp_path.rglob("*.jsonl"), *tmp_path.rglob("config.yaml")]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_ends_of_a_grid_fit_its_configuration(grid):
    base = grid.with_name(grid.name.replace(".grid", ""))
    points, seeds = read_grid(grid)
    assert len(seeds) >= 3
    for point in (points[0], points[-1]):
        words = [f"--{key}={as_word(value)}" for key, value in point.overrides.items()]
        config = asked_configuration([f"--config={base}", *words])
        for key, value in point.overrides.items():
            if key.endswith("+"):  # what is added to a list
                assert value["class_path"] in str(config)
                continue
            found = config
            for part in key.split("."):
                found = found[part]
            assert str(found).rpartition(".")[2] == str(value) or found == value


def test_there_are_configs_of_every_rule_for_both_data_sets():
    stems = {path.stem for path in CONFIGS if path.parent.name == "residual_explosion"}
    rules = {"bp", "fa", "block_fa", "dfa", "frozen"}
    more = ("dfa_frozen", "dfa_penalty")
    assert stems == rules | {f"{rule}_cifar10" for rule in (*rules, *more)}

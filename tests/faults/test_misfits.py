"""A checkpoint that is cut off, or of another rule, net or version."""

import copy
import warnings

import pytest
import torch

import lit_credit
from lit_credit.cli import main
from lit_credit.models import ResidualMLP
from lit_credit.rules import BP, DFA, FA
from lit_credit.runs.checkpoint_io import read_checkpoint
from lit_credit.runs.weight_files import read_saved
from lit_credit.tasks import Classification
from tests.support import loader, quiet_trainer
from tests.support.resumable import fit, last, mlp, rule, same

KINDS = (BP, FA, DFA)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of each rule."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind.__name__)
        fit(rule(kind), folder, max_epochs=1)
        found[kind] = last(folder)
    return found


def changed(path, folder, **entries):
    """A copy with other entries; None takes one out."""
    checkpoint = {**torch.load(path, weights_only=True), **entries}
    kept = {name: value for name, value in checkpoint.items() if value is not None}
    copied = folder / "changed.ckpt"
    torch.save(kept, copied)
    return copied


def resume(path, folder, module=None):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The dirpath has changed")
        fit(module or rule(), folder, ckpt_path=path, max_epochs=2)


def test_it_says_where_it_comes_from(saved):
    for kind, path in saved.items():
        entry = torch.load(path, weights_only=True)["lit_credit"]
        version = lit_credit.__version__
        assert entry.pop("saved_at") > 0
        assert entry == {"version": version, "rule": kind.__name__, "net": "ResidualMLP"}


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_one_is_named_with_its_size(keep, saved, tmp_path):
    data = saved[DFA].read_bytes()
    cut = data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep]
    path, other = tmp_path / "last.ckpt", tmp_path / "step=7.ckpt"
    path.write_bytes(cut)
    other.write_bytes(data)
    says = rf"last\.ckpt \({len(cut)} bytes\) is cut off.*Others in that folder: step=7\.ckpt\."
    with pytest.raises(ValueError, match=says):
        resume(path, tmp_path / "run")
    with pytest.raises(ValueError, match=says):
        DFA.load_from_checkpoint(path, net=mlp(), task=Classification(5))
    with pytest.raises(ValueError, match=f"`reference`: .*{says}"):
        read_saved(path, argument="reference")
    other.unlink()
    with pytest.raises(ValueError, match="Start anew without it"):
        read_checkpoint(path)


def test_what_is_no_checkpoint_is_told_by_its_reason(tmp_path):
    (tmp_path / "a.ckpt").write_text("# No checkpoint")
    with pytest.raises(ValueError, match=r"cannot be read \(Unsupported operand \d+\)"):
        read_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"^nowhere://a\.ckpt cannot be read: Protocol not known"):
        read_checkpoint("nowhere://a.ckpt")


def test_weights_alone_are_nothing_to_go_on_from(saved, tmp_path):
    path = changed(saved[DFA], tmp_path, optimizer_states=None)
    with pytest.raises(ValueError, match=r"no state of an optimizer.*`test`"):
        resume(path, tmp_path / "run")
    quiet_trainer().validate(rule(), loader(), ckpt_path=path, verbose=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_one_of_another_rule_is_refused_by_name(kind, other, saved, tmp_path):
    if kind is other:
        resume(saved[kind], tmp_path, rule(kind))
        return
    says = f"is of the rule {other.__name__}, and this is {kind.__name__}"
    with pytest.raises(ValueError, match=says):
        resume(saved[other], tmp_path, rule(kind))
    with pytest.raises(ValueError, match=says):
        quiet_trainer().validate(rule(kind), loader(), ckpt_path=saved[other], verbose=False)
    with pytest.raises(ValueError, match=says):
        kind.load_from_checkpoint(saved[other], net=mlp(), task=Classification(5))
    weights = torch.load(saved[other], weights_only=True)["state_dict"]
    module = rule(kind)
    module.load_state_dict(weights, strict=False)
    names = [name for name, _ in module.named_parameters()]
    same({n: module.state_dict()[n] for n in names}, {n: weights[n] for n in names})


@pytest.mark.parametrize(
    ("net", "parts"),
    [
        ({"depth": 3}, ["6 missing (first `net.blocks.2.", "of ResidualMLP does not fit"]),
        ({"depth": 1}, ["6 unexpected (first `net.blocks.1."]),
        ({"width": 9}, ["of another shape (first `net.embed.weight`, (8, 20) in the checkpoint"]),
    ],
)
def test_one_of_another_net_is_refused_with_the_first_tensor(net, parts, saved, tmp_path):
    with pytest.raises(ValueError, match="does not fit") as raised:
        resume(saved[DFA], tmp_path, rule(net=lambda: mlp(**net)))
    text = str(raised.value)
    for part in [*parts, f"lit_credit {lit_credit.__version__}", "config.yaml"]:
        assert part in text
    assert len(text) < 500
    assert "\n" not in text


class Derived(DFA):
    """Somebody's own, that only logs more."""


def test_a_rule_takes_what_the_rule_it_is_derived_from_has_saved(saved, tmp_path):
    resume(saved[DFA], tmp_path, rule(Derived))
    loaded = Derived.load_from_checkpoint(saved[DFA], net=mlp(), task=Classification(5))
    same(loaded.state_dict(), torch.load(saved[DFA], weights_only=True)["state_dict"])


def test_weights_of_the_wrong_shape_are_refused_without_strictness_too(saved):
    module = rule(net=lambda: mlp(width=9))
    state = torch.load(saved[DFA], weights_only=True)["state_dict"]
    with pytest.raises(ValueError, match="does not fit"):
        module.load_state_dict(state, strict=False)


def test_without_strictness_what_fits_is_loaded(saved):
    state = torch.load(saved[DFA], weights_only=True)["state_dict"]
    module = rule(net=lambda: mlp(depth=3))
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert len(missing) == 6
    assert not unexpected
    same({n: module.state_dict()[n] for n in state}, state)


# Versions


def test_one_without_the_entry_loads_where_it_fits(saved, tmp_path):
    path = changed(saved[DFA], tmp_path, lit_credit=None)
    resume(path, tmp_path / "run")
    with pytest.raises(ValueError, match=r"saved by lit_credit 0\.1 or older, this is"):
        resume(path, tmp_path / "deep", rule(net=lambda: mlp(depth=3)))
    hyper = {"_class_path": "lit_credit.rules.FA"}
    path = changed(saved[DFA], tmp_path, lit_credit=None, hyper_parameters=hyper)
    with pytest.raises(ValueError, match="of the rule FA"):
        resume(path, tmp_path / "other")


def test_one_of_the_future_loads_with_a_warning_where_it_fits(saved, tmp_path):
    entry = {"version": "99.1", "rule": "DFA", "net": "ResidualMLP", "new": 3}
    path = changed(saved[DFA], tmp_path, lit_credit=entry)
    with pytest.warns(UserWarning, match=r"saved by lit_credit 99\.1, which is newer"):
        resume(path, tmp_path / "run")
    with pytest.raises(ValueError, match=r"saved by lit_credit 99\.1, this is"):
        resume(path, tmp_path / "deep", rule(net=lambda: mlp(depth=3)))


def test_one_of_a_newer_lightning_loads_with_lightnings_warning(saved, tmp_path):
    path = changed(saved[DFA], tmp_path, **{"pytorch-lightning_version": "99.0"})
    with pytest.warns(UserWarning, match=r"Lightning v99\.0, which is newer"):
        resume(path, tmp_path / "run")


@pytest.mark.parametrize("name", ["62p", "67p", "wide"])
def test_those_of_the_notebooks_are_of_an_older_version_and_load(name):
    path = f"notebooks/checkpoints/addition_{name}.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    same(BP.load_from_checkpoint(path).state_dict(), state)


def test_one_of_them_for_another_net_is_refused(tmp_path, capsys):
    words = ["validate", "--config", "configs/addition/67p.yaml", "--trainer.accelerator=cpu"]
    words += ["--ckpt_path", "notebooks/checkpoints/addition_wide.ckpt"]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "does not fit MicroAdder" in line
    assert "lit_credit 0.1 or older" in line


def test_the_command_line_runs_what_is_configured(saved, tmp_path, capsys):
    """Lightning would take the rule and the net of the checkpoint, without a word."""
    words = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
    words += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=2"]
    words += ["--trainer.accelerator=cpu", "--trainer.limit_train_batches=1"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.max_epochs"]
    place = "--trainer.default_root_dir"
    assert main([*words, "1", place, str(tmp_path)]) == 0
    path = tmp_path / "BP" / "seed_42" / "checkpoints" / "last.ckpt"
    own = path.parents[1] / "config.yaml"
    before = own.read_bytes()
    new = [place, str(tmp_path / "new")]
    for change, says in (
        ([*new, "--model.net.depth=4"], "does not fit ResidualMLP"),
        ([*new, "--model=FA"], "of the rule BP, and this is FA"),
        ([place, str(tmp_path), "--model.net.depth=4"], "`config.yaml` of its run has them"),
    ):
        assert main([*words, "2", "--ckpt_path", str(path), *change]) == 1
        assert says in capsys.readouterr().err.splitlines()[-1]
    assert own.read_bytes() == before  # what is refused has not written its own in its place


def test_a_state_of_its_own_kind_passes_through(saved):
    """Loading twice, from a copy, and after a refusal."""
    module = rule()
    state = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match="does not fit"):
        module.load_state_dict({}, strict=True)
    module.load_state_dict(state)
    assert isinstance(module.net, ResidualMLP)

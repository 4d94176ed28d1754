"""Series of saved weights: files, steps, epochs, order, and errors."""

import json
from pathlib import Path
from weakref import ref

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch import nn

from lit_credit.callbacks import ResidualNorms
from lit_credit.runs.foreign_weights import copied_equal, fitted
from lit_credit.runs.history import read_history
from lit_credit.runs.saved_steps import step_of_name
from lit_credit.runs.weight_files import read_saved
from lit_credit.runs.weight_series import weight_series
from tests.support import loader, quiet_trainer
from tests.support.resumable import mlp, rule, same


def net(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))


def saved(path, step=None, state=None, **others):
    state = net().state_dict() if state is None else state
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, **others} | ({} if step is None else {"step": step}), path)
    return path


def steps(*args):
    return [weights.step for weights in weight_series(*args)]


NAMES = {
    "ckpt_200.pt": 200,
    "model-000400.bin": 400,
    "epoch=3-step=1200.ckpt": 1200,
    "epoch=3-step=1200-v1.ckpt": 1200,
    "epoch=3.ckpt": 3,
    "val_loss=0.25-epoch=3.ckpt": 3,
    "model_step_1000_loss_0.25.pt": 1000,
    "step1000-tokens4B.pt": 1000,
    "step10k.pt": 10_000,
    "1000steps.pt": 1000,
    "epoch3_step1200.pt": 1200,
    "ckpt.200.pt": 200,
    "model.1000": 1000,
    "step1000/model.safetensors": 1000,
    "checkpoint-500/pytorch_model.bin": 500,
    "last.ckpt": None,
    "run_3/last.ckpt": None,
    "pythia-70m/model.safetensors": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_its_step(name):
    assert step_of_name(Path(name)) == NAMES[name]


def test_files_come_in_the_order_of_their_steps(tmp_path):
    for step in (1000, 200, 400):
        saved(tmp_path / "a" / f"ckpt_{step}.pt")
    given = [tmp_path / "a" / f"ckpt_{step}.pt" for step in (400, 1000, 200)]
    for checkpoints in (tmp_path, str(tmp_path / "*" / "ckpt_*.pt"), given, [tmp_path / "a"]):
        assert steps(checkpoints) == [200, 400, 1000]
    assert steps([(7, given[0]), (5, given[1])]) == [5, 7]
    assert steps({7: given[0], 5: net().state_dict()}) == [5, 7]
    assert steps((7, given[0])) == [7]
    assert steps([(5, given[0]), (7, given[0])]) == [5, 7]


def test_a_step_in_the_file_counts_before_its_name(tmp_path):
    assert steps(saved(tmp_path / "seed_3.pt", step=40)) == [40]
    assert steps(saved(tmp_path / "a.pt", step=torch.tensor(41))) == [41]
    assert steps(saved(tmp_path / "ckpt_5.pt", step="x")) == [5]


def test_the_folders_of_a_training_of_hugging_face(tmp_path):
    for step in (1000, 500):
        folder = saved(tmp_path / f"checkpoint-{step}" / "model.safetensors").parent
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        torch.save({"state": {}}, folder / "optimizer.pt")
    saved(tmp_path / "model.safetensors")  # the result, once more
    (tmp_path / "training_args.bin").write_bytes(b"no weights")
    for checkpoints in (tmp_path, str(tmp_path / "checkpoint-*"), str(tmp_path / "*" / "*")):
        assert steps(checkpoints) == [500, 1000]


def test_revisions_in_the_cache_of_hugging_face_have_the_names_of_their_branches(tmp_path):
    for digit, branch in (("1", "step20"), ("2", "step3")):
        saved(tmp_path / "snapshots" / (digit * 40) / "model.safetensors")
        (tmp_path / "refs").mkdir(exist_ok=True)
        (tmp_path / "refs" / branch).write_text(digit * 40)
    assert steps(tmp_path) == [3, 20]


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_weights_in_several_files_are_one(ending, tmp_path):
    stem, state = {"safetensors": "model", "bin": "pytorch_model"}[ending], net().state_dict()
    files = {name: f"{stem}-0000{n % 2 + 1}-of-00002.{ending}" for n, name in enumerate(state)}
    for file in set(files.values()):
        part = {name: state[name] for name in state if files[name] == file}
        save_file(part, tmp_path / file) if ending == "safetensors" else torch.save(
            part, tmp_path / file
        )
    (tmp_path / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": files}))
    same(dict(read_saved(tmp_path)["state_dict"]), dict(state))
    (weights,) = weight_series([(5, tmp_path / file)])  # a part stands for the whole
    assert weights.path == tmp_path
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"lacks {file} of the 2 files"):
        read_saved(tmp_path)


def test_without_safetensors_the_remedy_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / "a_1.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ValueError, match="pip install safetensors"):
        weight_series(path)


def test_a_generator_is_asked_for_one_item_at_a_time():
    made = []

    def items():
        for step in (1, 5, 5):
            made.append(step)
            yield step, net().state_dict()

    series = weight_series(items())
    assert made == [1]
    series = iter(series)
    assert [next(series).step, next(series).step] == [1, 5]
    assert made == [1, 5]
    with pytest.raises(ValueError, match=r"item 3 .* has step 5 after step 5"):
        next(series)


def test_a_generator_makes_the_next_state_dict_when_the_last_is_gone():
    made = []

    def items():
        for step in range(3):
            assert all(tensor() is None for tensor in made)
            state = net().state_dict()
            made.append(ref(state["0.weight"]))
            pair = (step, state)
            del state
            yield pair
            del pair

    for weights in weight_series(items()):
        assert weights.read()["state_dict"]["0.weight"].shape == (4, 3)
        del weights
    assert len(made) == 3


def test_a_link_stands_for_its_file_and_revisions_may_share_one(tmp_path):
    saved(tmp_path / "a" / "ckpt_5.pt")
    (tmp_path / "a" / "last.pt").symlink_to("ckpt_5.pt")
    assert steps(tmp_path / "a") == [5]
    for step in (1, 2):
        (tmp_path / f"step{step}").mkdir()
        (tmp_path / f"step{step}" / "pytorch_model.bin").symlink_to(tmp_path / "a" / "ckpt_5.pt")
    assert steps(str(tmp_path / "step*" / "*.bin")) == [1, 2]


def test_of_equal_files_of_one_step_the_numbered_is_taken(tmp_path):
    state = net().state_dict()
    saved(tmp_path / "last.ckpt", 12, state)
    saved(tmp_path / "step=12.ckpt", 12, state)
    (weights,) = weight_series(tmp_path)
    assert weights.path.name == "step=12.ckpt"
    saved(tmp_path / "members" / "M07_seed49.ckpt", 12, net(width=7).state_dict())
    assert steps(tmp_path) == [12]
    saved(tmp_path / "last.ckpt", 12)
    with pytest.raises(ValueError, match=r"step=12\.ckpt and .*last\.ckpt both are of step 12"):
        weight_series(tmp_path)


def test_files_of_different_nets_are_named(tmp_path):
    saved(tmp_path / "a_1.pt")
    saved(tmp_path / "a_2.pt", state={f"module.{n}": v for n, v in net().state_dict().items()})
    assert steps(tmp_path) == [1, 2]
    saved(tmp_path / "a_3.pt", state=net(width=5).state_dict())
    with pytest.raises(
        ValueError, match=r"a_1\.pt and .*a_3\.pt have .*0\.weight \(4, 3\) and \(5, 3"
    ):
        weight_series(tmp_path)
    saved(tmp_path / "a_3.pt", state=net().state_dict() | {"x": torch.ones(1)})
    with pytest.raises(ValueError, match=r"1 tensors only in the second \(x\)"):
        weight_series(tmp_path)


def test_every_error_names_the_remedy(tmp_path):
    saved(tmp_path / "last.ckpt")
    (tmp_path / "none").mkdir()
    for name in ("lfs_1.pt", "lfs_1.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 5\n")
    state = net().state_dict()
    for checkpoints, says in (
        (tmp_path / "last.ckpt", r"does not tell its step.*Give \(step, path\)"),
        (tmp_path / "step_*.pt", r"matches no weights\. In .* lie: last\.ckpt, lfs_1\.pt"),
        (tmp_path / "none", r"a folder without weights"),
        (tmp_path / "none" / "no" / "a.pt", r"does not exist\. In .*none lie: none"),
        ("https://host/a.pt", "a URL. Download it first"),
        ([], "`checkpoints` is empty"),
        ([state], "a state_dict without its step, expected"),
        ([(3, {"lr": 0.1})], "item 1 .* no tensors by name"),
        (7, "`checkpoints` is int, expected a path"),
        (net(), "`checkpoints` is Sequential, expected a path"),
        (state, "a state_dict without its step, expected"),
        ([("3", "a.pt")], r"item 1 of `checkpoints` is \(str, str\)"),
        ([(-3, tmp_path / "last.ckpt")], "has step -3, expected 0 or more"),
        (tmp_path / "lfs_1.pt", "pointer of Git LFS.*git lfs pull"),
        (tmp_path / "lfs_1.safetensors", "pointer of Git LFS"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            weight_series(checkpoints)


def test_a_file_cut_off_is_named_before_any_is_used(tmp_path):
    saved(tmp_path / "a_1.pt")
    for ending in ("pt", "safetensors"):
        path = saved(tmp_path / f"a_2.{ending}")
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(ValueError, match=rf"a_2\.{ending} \(200 bytes\) is cut off"):
            weight_series(tmp_path)
        path.unlink()


class SavesAtBorders(Callback):
    def on_train_start(self, trainer, pl_module):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/c/begin.ckpt", weights_only=False)

    def on_train_epoch_start(self, trainer, pl_module):
        path = f"{trainer.default_root_dir}/c/start{trainer.current_epoch}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/c/end.ckpt", weights_only=False)


@pytest.mark.parametrize("validates", [1.0, 0.5])
def test_epochs_are_those_of_the_rows_at_that_step(validates, tmp_path):
    class AtValidation(ModelCheckpoint):
        state_key = "at validation"

    kinds = {"m{step}": {"every_n_train_steps": 2}, "e{step}": {"save_on_train_epoch_end": True}}
    kinds["w{step}"] = {"every_n_train_steps": 3, "save_weights_only": True}
    callbacks = [
        ModelCheckpoint(tmp_path / "c", filename=name, save_top_k=-1, **kwargs)
        for name, kwargs in kinds.items()
    ]
    callbacks.append(
        AtValidation(tmp_path / "c", "v{step}", save_top_k=-1, save_on_train_epoch_end=False)
    )
    trainer = quiet_trainer(
        callbacks=[ResidualNorms(every_n_steps=1, figure=False), SavesAtBorders(), *callbacks],
        default_root_dir=tmp_path,
        enable_checkpointing=True,
        max_epochs=2,
        val_check_interval=validates,
    )
    trainer.fit(rule(), loader(), loader(n=32))
    (history,) = tmp_path.rglob("residual_norms.jsonl")
    epochs = {row["step"]: row["epoch"] for row in read_history(history)}
    files = sorted((tmp_path / "c").iterdir())
    assert len(files) > 12
    for path in files:
        (weights,) = weight_series(path)
        assert weights.epoch == epochs[weights.step], path
    assert steps(tmp_path)[-1] == 12  # also from before the first step, without drawn feedback


def test_epochs_of_a_series_of_ours_and_of_files_that_do_not_tell(tmp_path):
    entry = {"lit_credit_series": {"epochs_completed": 4}}
    torch.save({"state_dict": net().state_dict(), **entry}, tmp_path / "a_1.ckpt")
    saved(tmp_path / "a_2.ckpt", epoch=3)
    assert [weights.epoch for weights in weight_series(tmp_path)] == [4, None]


def test_equal_neighbours_are_noticed(tmp_path):
    module, states = mlp(), [mlp().state_dict(), mlp().state_dict()]
    states = [states[0], states[0], states[1]]
    for step, state in enumerate(states):
        saved(tmp_path / f"ckpt_{step}.pt", state={n: v.double() for n, v in state.items()})
    found = [
        copied_equal(module, fitted(module, weights.read(), weights.source).tensors)
        for weights in weight_series(tmp_path)
    ]
    assert found == [False, True, False]
    same(module.state_dict(), states[-1])


def test_folders_with_brackets_and_longer_endings(tmp_path):
    for step in (1, 2):
        saved(tmp_path / "lr[0.1]" / f"checkpoint-{step}.pth.tar")
    assert steps(tmp_path / "lr[0.1]") == [1, 2]
    assert steps(str(tmp_path / "lr[0.1]" / "*.pth.tar")) == [1, 2]
    assert steps(str(tmp_path / "lr*" / "*-[2].*")) == [2]


def test_files_of_averaged_and_of_trained_weights_of_one_step(tmp_path):
    trained, averaged = net().state_dict(), net().state_dict()
    entries = {"state_dict": averaged, "current_model_state": trained, "global_step": 4}
    torch.save(entries, tmp_path / "epoch=0-step=4.ckpt")
    torch.save({"state_dict": trained, "global_step": 4}, tmp_path / "step=00000004.ckpt")
    assert steps(tmp_path) == [4]


def test_an_accuracy_after_an_epoch_is_not_a_step():
    names = ("epoch5_acc97.pt", "epoch=10-acc=93.ckpt", "ckpt_ep3_top1.pth", "epoch3_step=40.pt")
    assert [step_of_name(Path(name)) for name in names] == [5, 10, 3, 40]
    assert step_of_name(Path("checkpoint_3_1500.pt")) == 1500

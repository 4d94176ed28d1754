"""Text that a model writes while it learns."""

import random

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import seed_everything
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_credit.callbacks import TextSamples
from lit_credit.cli import main
from lit_credit.datamodules import CharText, Digits
from lit_credit.models import GPT
from lit_credit.rules import BP
from lit_credit.tasks import NextToken
from tests import support
from tests.support import same_state

TEXT = "abcabcabd\n" * 60


@pytest.fixture
def data(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return CharText(str(tmp_path / "text.txt"), block_size=8, batch_size=4, steps_per_epoch=3)


def gpt():
    seed_everything(1, verbose=False)
    net = GPT(vocab_size=5, block_size=8, depth=1, heads=2, width=8, dropout=0.3)
    return BP(net, NextToken())


def test_training_is_the_same_to_the_bit_and_samples_are_logged(data, tmp_path):
    runs = []
    for callbacks in ((), (TextSamples(length=12),)):
        module = gpt()
        folder = tmp_path / str(len(callbacks))
        support.trainer(folder, *callbacks, max_epochs=2).fit(module, datamodule=data)
        runs.append((module, torch.get_rng_state(), random.getstate()))
    (bare, *before), (watched, *after) = runs
    assert same_state(bare, watched)
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert watched.training
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    logged = events.Tensors("samples/text/text_summary")
    assert [entry.step for entry in logged] == [3, 6]
    text = logged[0].tensor_proto.string_val[0].decode()
    assert len(text.replace("    ", "").rstrip("\n")) <= 13
    assert set(text) <= set(TEXT + " ")


def test_a_trained_model_writes_what_it_was_trained_on(data, tmp_path):
    seed_everything(0, verbose=False)
    data.steps_per_epoch = 150
    net = GPT(vocab_size=5, block_size=8, depth=1, heads=2, width=16)
    module = BP(net, NextToken(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    trainer = support.trainer(tmp_path, max_epochs=1, logger=False)
    trainer.fit(module, datamodule=data)
    sample = TextSamples(length=30, temperature=0).sample(trainer, module)
    assert sample == "\n" + "abcabcabd\n" * 3
    warm = TextSamples(length=30, temperature=5, seed=1)
    assert warm.sample(trainer, module) == warm.sample(trainer, module) != sample


def test_predict_writes_to_stdout(tmp_path, capsys):
    args = ["--model", "BP", "--model.task", "NextToken", "--model.net", "GPT"]
    args += ["--model.net.vocab_size", "96", "--model.net.width", "8", "--model.net.depth", "1"]
    args += [
        "--data",
        "CharText",
        "--trainer.callbacks+",
        "TextSamples",
        "--trainer.logger",
        "false",
    ]
    args += ["--trainer.callbacks.prompt", "def f(", "--trainer.callbacks.length", "20"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.enable_progress_bar", "false"]
    assert main(["predict", *args]) == 0
    assert "\ndef f(" in "\n" + capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"prompt": ""}, "prompt"),
        ({"length": 0}, "length"),
        ({"context": 0}, "context"),
        ({"temperature": -0.1}, "temperature"),
    ],
)
def test_bad_arguments_are_named(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        TextSamples(**arguments)


def test_without_an_alphabet_or_with_a_foreign_prompt_it_stops_before_training(data, tmp_path):
    with pytest.raises(MisconfigurationException, match="Digits does not have"):
        support.trainer(tmp_path, TextSamples()).fit(gpt(), datamodule=Digits())
    with pytest.raises(ValueError, match="not in the vocabulary"):
        support.trainer(tmp_path, TextSamples(prompt="xyz")).fit(gpt(), datamodule=data)

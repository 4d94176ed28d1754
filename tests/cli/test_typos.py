"""Words that were meant otherwise, and what the error suggests."""

import pytest

from lit_credit.cli import main

CONFIG = ["fit", "--config", "configs/rules/dfa.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max_epochs", "3"], "did you mean --trainer.max_epochs?"),
        (["--acelerator", "cpu"], "did you mean --trainer.accelerator"),
        (["--epochs", "3"], "did you mean --trainer.max_epochs or --trainer.min_epochs?"),
        (["--trainr.max_steps", "3"], "did you mean --trainer.max_steps?"),
        (["--ckpt_pth", "last"], "did you mean --ckpt_path?"),
        (["--sed_everything", "3"], "did you mean --seed_everything?"),
        (["--model.lr", "3"], "Option 'lr' is not accepted. DFA takes"),
        (["--model.init_args.feedbak", "xavier"], "did you mean feedback? DFA takes"),
        (
            ["--model.init_args.net.init_args.hiden", "[8]"],
            "Option 'hiden' is not accepted; did you mean hidden? MLP takes in_features",
        ),
        (["--data.init_args.batchsize", "3"], "did you mean batch_size? Digits takes"),
    ],
)
def test_a_typo_names_what_was_meant(words, said, capsys):
    assert main([*CONFIG, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_word_that_nothing_is_near_gets_no_suggestion(capsys):
    assert main([*CONFIG, "--zzz", "3"]) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "diagnose"])
def test_options_without_a_configuration_ask_for_one(command, capsys):
    assert main([command, "--trainer.max_epochs", "3"]) == 2
    assert "A configuration gives them: `--config FILE`" in capsys.readouterr().err

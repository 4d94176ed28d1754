"""Words that are read once and used again are what the command itself would read."""

from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from lit_credit.cli import main
from lit_credit.cli.configuration import ReadWords, configuration_of, fit_read, read_words
from lit_credit.cli.kept_parsers import _KEPT
from lit_credit.cli.sweep.handed import as_text, from_text
from lit_credit.runs.yaml_files import parse_yaml

CONFIGS = Path("configs")

RULES = sorted(CONFIGS.glob("rules/*.yaml"))[::6]
WRONG = {
    "--model.init_args.net.init_args.hiden=3": "hiden",
    "--model=Foo": "no class Foo",
    "--trainer.max_epochs=many": "expected int",
    "--seed_everything=-1": "expected 0 to",
}


@pytest.fixture(autouse=True)
def no_kept_parser():
    _KEPT.clear()
    yield
    _KEPT.clear()


def printed(words, capsys):
    """What the command prints, with a parser of its own."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words, "--print_config"])
    assert not stop.value.code
    return parse_yaml(capsys.readouterr().out)


def test_the_second_reading_uses_the_parser_of_the_first():
    words = [f"--config={RULES[0]}", "--trainer.max_epochs=4"]
    first = read_words(words)
    (parts,) = _KEPT.values()
    second = read_words([*words, "--trainer.max_epochs=3"])
    (again,) = _KEPT.values()
    assert again["parser"] is parts["parser"]
    assert first.configuration["trainer"]["max_epochs"] == 4
    assert second.configuration["trainer"]["max_epochs"] == 3
    assert read_words(words).configuration == first.configuration  # nothing is left behind


def test_the_configuration_is_what_the_command_prints(capsys):
    expected = {path: printed([f"--config={path}"], capsys) for path in RULES}
    _KEPT.clear()
    for (wrong, why), path in zip([*WRONG.items()] * 2, RULES, strict=False):
        with pytest.raises(ValueError, match=why):
            configuration_of([f"--config={path}", wrong])
        assert configuration_of([f"--config={path}"]) == expected[path]


def test_what_was_read_goes_on_as_if_its_words_were_read(tmp_path):
    """With the seed, the folder and the checkpoint set, as a sweep sets them."""
    own = {
        "seed_everything": 9,
        "trainer.default_root_dir": str(tmp_path / "a b"),
        "ckpt_path": str(tmp_path / "last.ckpt"),
    }
    for path in RULES:
        words = [f"--config={path}", "--trainer.callbacks+=GradientNorms"]
        read = from_text(as_text(read_words(words)))
        for name, value in own.items():
            read.namespace.fit[name] = value
        expected = read_words([*words, *(f"--{k}={v}" for k, v in own.items())])
        wanted = expected.namespace.clone(with_meta=False)
        wanted.fit.config = None  # paths of files that are read already
        assert read.namespace == wanted


def test_what_is_handed_on_is_plain_data():
    fit = {
        "a": (1, [2.5, None, {"b": True}]),
        "c": {},
        "d": Namespace(e={"f": "g"}, h=float("inf")),
    }
    read = ReadWords(Namespace(fit=Namespace(config=["x"], **fit)), {}, ["line"])
    found = from_text(as_text(read))
    assert found == ReadWords(Namespace(fit=Namespace(config=None, **fit)), {}, ["line"])
    assert type(found.namespace.fit.c) is dict
    assert type(found.namespace.fit.d) is Namespace
    assert type(found.namespace.fit.a) is tuple
    assert read.namespace.fit.config == ["x"]  # nothing is changed
    read.namespace.fit.a = torch.relu
    assert as_text(read) is None


def test_a_run_of_read_words_prints_what_a_replaced_class_drops(tmp_path, capsys):
    words = [f"--config={CONFIGS / 'rules' / 'dfa_low_rank.yaml'}", "--model.class_path=BP"]
    words += ["--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path}"]
    words += ["--trainer.enable_progress_bar=false"]
    read = read_words(words)
    assert capsys.readouterr().err == ""
    assert read.lines
    cli = fit_read(read, words)
    assert cli.trainer.global_step == 1
    assert cli.model.hparams["_class_path"] == "lit_credit.rules.BP"
    err = capsys.readouterr().err
    assert all(f"lit-credit: {line}\n" in err for line in read.lines)
    assert not _KEPT  # a parser that has built classes serves nobody else

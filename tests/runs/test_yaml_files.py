"""YAML that says one thing twice, or grows when it is read, is refused before it is built."""

import pytest
import yaml

from lit_credit.cli import main
from lit_credit.cli.sweep.grid import read_grid
from lit_credit.runs.yaml_files import check_yaml, checked_loader, parse_yaml

TENFOLD = [",".join([f"*a{i - 1}"] * 10) for i in range(40)]
LISTS = "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [{TENFOLD[i]}]\n" for i in range(1, 40))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{TENFOLD[i]}]}}\n" for i in range(1, 40))
WIDE = f"a: &a [{','.join('1' * 30_000)}]\nb: [{','.join(['*a'] * 30_000)}]\n"
LONG = f"a: &a {'x' * 50_000}\nb: [*a, *a, *a]\n"
REFUSED = {
    "a bomb of lists": (LISTS, "characters, more than 100000"),
    "a bomb of merges": (MERGES, "characters, more than 100000"),
    "a wide bomb": (WIDE, "characters, more than 100000"),
    "a long text": (LONG, "characters, more than 100000"),
    "a list in itself": ("a: &a [1, *a]\n", "`*a` stands inside `&a`"),
    "a mapping in itself": ("a: &a {b: {c: *a}}\n", "`*a` stands inside `&a`"),
    "depth": (f"a: {'[' * 150}{']' * 150}\n", "line 1: more than 100 levels"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "line 3: the key `a` stands twice, first in line 1"),
    "a quoted key": ("a: 1\n'a': 3\n", "line 2: the key `a` stands twice"),
    "an inner key": (
        "x: [{lr: 1}, {m: 1,\n  lr: 1, lr: 2}]\n",
        "line 2: the key `lr` stands twice",
    ),
    "a key that is no text": ("b: {1: 2, 1: 3}\n", "the key `1` stands twice"),
    "one switch in two spellings": ("b: {true: 2, True: 3}\n", "the key `True` stands twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tmp_path, capsys):
    text, message = REFUSED[name]
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^line \d+: ") as caught:
        check_yaml(text)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match=r"^--grid: .*some\.yaml': line \d+: ") as caught:
        read_grid(path)
    assert message in str(caught.value)
    try:
        code = main(["fit", f"--config={path}"])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert "some.yaml: line " in error
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_word_of_the_command_line_is_checked_too(capsys):
    assert main(["fit", "--trainer.logger={class_path: CSVLogger, class_path: CometLogger}"]) == 2
    assert "trainer.logger: line 1: the key `class_path` stands twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: *a", {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 1}}),
        ("[{a: 1}, {a: 2}]", [{"a": 1}, {"a": 2}]),
        ("1: a\n'1': b", {1: "a", "1": "b"}),
        ("a: &a [1, 2]\nb: [*a, *a]", {"a": [1, 2], "b": [[1, 2], [1, 2]]}),
        ("", None),
    ],
)
def test_what_is_read_as_before(text, value):
    assert parse_yaml(text) == value == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\x00",
        "!!bool maybe",
        "!!timestamp soon",
        "2001-99-99",
        "a: " + "9" * 5000,
        "{[1]: 2}",
    ],
)
def test_what_is_not_yaml_gets_one_line(text):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_yaml(text)


def test_numbers_are_those_of_the_parser(tmp_path, capsys):
    """Of YAML 1.1, where 1e-3 is text, only the grid is; as a word it is the same number."""
    path = tmp_path / "some.yaml"
    path.write_text("trainer: {gradient_clip_val: 1e-3, max_epochs: 1_000}\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={path}", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert (printed["gradient_clip_val"], printed["max_epochs"]) == (0.001, 1000)


TWICE = {
    "one argument in two forms": (
        "trainer: {max_epochs: 5}\ntrainer.max_epochs: 3\n",
        "`trainer.max_epochs` and `trainer.max_epochs` set one argument",
    ),
    "a list and an addition": (
        "trainer: {callbacks: [GradientNorms], callbacks+: [ResidualNorms]}\n",
        "`trainer.callbacks` and `trainer.callbacks+` set one argument",
    ),
    "an addition first, and of one class": (
        "trainer: {callbacks+: {class_path: ResidualNorms}, callbacks: [GradientNorms]}\n",
        "`trainer.callbacks+` and `trainer.callbacks` set one argument",
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_one_argument_in_two_spellings_is_refused(name, tmp_path, capsys):
    text, message = TWICE[name]
    path = tmp_path / "some.yaml"
    path.write_text(text)
    try:
        code = main(["fit", f"--config={path}"])
    except SystemExit as stop:
        code = stop.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code in (1, 2)
    assert f"some.yaml: {message}" in line


def test_different_arguments_may_look_alike():
    load = checked_loader(parse_yaml)
    for text in (
        "{a: {b: 1}, a.c: 2}",
        "{optimizer: SGD, optimizer.lr: 0.1}",
        "{dict_kwargs: {C: 1, C+: 2}}",
        "{x: {}, x.y: 1}",
        "[{a: 1}, {a: 2}]",
    ):
        assert load(text) == parse_yaml(text)

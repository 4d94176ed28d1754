"""What a command loads, and what it answers before that."""

import re
import signal
import subprocess
import sys

import pytest

from lit_credit.cli import loading, main
from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.commands import COMMANDS, is_of_trainer
from lit_credit.cli.diagnose import main as diagnose
from lit_credit.cli.fit import LitCreditCLI, run
from lit_credit.cli.short_help import option_names


def printed(code, *, fails=False):
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert fails or ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def loaded(words, packages):
    """Which packages are loaded when the command line has answered."""
    return printed(
        "import io, sys\n"
        "from contextlib import redirect_stderr, redirect_stdout, suppress\n"
        "from lit_credit.cli import main\n"
        "quiet = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())\n"
        f"with quiet[0], quiet[1], suppress(SystemExit):\n    main({words!r})\n"
        f"print([name for name in {packages!r} if name in sys.modules])"
    )


FIRST_WORDS = [
    ["--help"],
    ["--version"],
    ["fti"],
    ["--versoin"],
    [],
    ["fit", "--config", "nowhere.yaml"],
]
HELPS = [[command, "--help"] for command in COMMANDS]


@pytest.mark.parametrize("words", [*FIRST_WORDS, *HELPS], ids=" ".join)
def test_first_words_are_answered_without_torch(words):
    assert loaded(words, ("torch", "lightning")) == "[]\n"


def test_a_wrong_run_is_refused_without_lightning():
    words = ["compare", "nowhere", "--out", "out"]
    assert loaded(words, ("lightning", "matplotlib")) == "[]\n"


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["comprae"], 2)])
def test_every_command_is_listed_with_a_line(words, code, capsys):
    assert main(words) == code
    out, err = capsys.readouterr()
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.text)}$", out + err, re.MULTILINE)
    assert bool(err) == (words == ["comprae"])
    assert ("Did you mean `lit-credit compare`?" in err) == bool(err)


def test_a_wrong_option_in_front_of_a_command_is_answered(capsys):
    assert main(["--versoin"]) == 2
    error = capsys.readouterr().err
    assert "no option '--versoin'. Did you mean `lit-credit --version`?" in error


def test_the_list_has_the_commands_of_the_trainer():
    assert set(filter(is_of_trainer, COMMANDS)) == set(LitCreditCLI.subcommands())


def test_versions_are_those_of_the_packages(capsys):
    import lightning

    import lit_credit

    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"lit-credit {lit_credit.__version__} (torch ")
    assert f"lightning {lightning.__version__}" in out


@pytest.mark.parametrize("command", list(filter(is_of_trainer, COMMANDS)))
def test_the_short_help_has_the_options_of_the_parser(command, capsys):
    with pytest.raises(SystemExit):
        (diagnose if command == "diagnose" else run)([command, "--help"])
    words = re.findall(r"--[\w.]+(?![\w+.])", capsys.readouterr().out)
    known = {word for word in words if not re.search(r"\.help$|\.NAME$|\.$", word)}
    # Without an effect there, or anywhere; what the class lists take below their own name.
    without = {"--weights_only", "--trainer", "--trainer.callbacks.loss"}
    without |= set() if command == "fit" else {"--on_resume", "--test_after_fit"}
    without |= {"--init_from"} if command == "diagnose" else set()
    given = {word for word in option_names(command) if not word.endswith(".help")}
    assert given - {"--help-all"} == known - without


def test_all_options_are_shown_when_asked_for(capsys):
    with pytest.raises(SystemExit):
        main(["validate", "--help-all"])
    assert "--trainer.limit_val_batches LIMIT_VAL_BATCHES" in capsys.readouterr().out


def test_a_missing_file_is_refused_in_the_words_of_the_whole_parser(capsys, tmp_path):
    words = ["fit", "--config", str(tmp_path / "nowhere.yaml")]
    assert main(words) == 2
    with pytest.raises(ArgumentsError) as refused:
        run(words)
    error = capsys.readouterr().err
    assert error == f"{refused.value.line}\n"
    assert "File does not exist" in error


class Terminal:
    def isatty(self):
        return True

    def write(self, text):
        self.text = getattr(self, "text", "") + text

    def flush(self):
        pass


def test_a_terminal_is_told_what_is_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with loading.say_loading():
        assert sys.stderr.text == "Loading PyTorch and Lightning ...\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    with loading.say_loading():
        assert sys.stderr.text.count("Loading") == 1


def test_a_log_is_told_once_it_takes_long(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    with loading.say_loading():
        pass
    assert capsys.readouterr().err == ""
    started = []
    monkeypatch.setattr(loading, "_PATIENCE", 0)
    monkeypatch.setattr(loading.Timer, "start", lambda timer: started.append(timer))
    with loading.say_loading():
        started[0].function(*started[0].args)
    assert capsys.readouterr().err == "Loading PyTorch and Lightning ...\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("words", [["fit", "--help"], [], ["completion", "bash"]])
def test_a_reader_that_has_read_enough_ends_the_command_without_an_error(words):
    command = [sys.executable, "-m", "lit_credit", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == -signal.SIGPIPE


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "diagnose"])
def test_a_command_of_the_trainer_alone_asks_for_a_configuration(command, capsys):
    code = f"import sys; from lit_credit.cli import main; code = main([{command!r}]); "
    code += "assert code == 2 and 'torch' not in sys.modules"
    printed(code)
    assert main([command]) == 2
    assert f"{command} needs a configuration, such as `lit-credit {command} --config" in (
        capsys.readouterr().err
    )

"""Errors of the command line: one line before the first step, a traceback after it."""

import errno
import os
import sys
import traceback
from types import FrameType
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.trainer.states import TrainerFn

from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.blame import blamed_part
from lit_credit.trainer.trainer import callbacks_of
from lit_credit.utils.short_text import shortened

__all__ = ["FirstStep", "line_of", "reason", "report"]

_SELF_EXPLAINING = (ValueError, MisconfigurationException, OSError, ImportError)
"""Error types whose message explains itself, without the type's name."""
_HINT = "LIT_CREDIT_TRACEBACK=1 shows where."


class FirstStep(Callback):
    """Records whether the first training step, or the first batch of an evaluation, is over."""

    def __init__(self) -> None:
        self.is_over = False

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """The first step of a fit is over."""
        self.is_over = True

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Count the first batch of ``validate``, but not the validation at the start of a fit."""
        self.is_over = self.is_over or trainer.state.fn == TrainerFn.VALIDATING

    def on_test_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """The first batch of ``test`` is over."""
        self.is_over = True

    def on_predict_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """The first batch of ``predict`` is over."""
        self.is_over = True


def report(error: Exception) -> int:
    """Print an error in one line. For a bug after the first step, print its traceback first.

    Args:
        error: the error that a command raised.

    Returns:
        The exit code: 2 if a parser has refused the command line, else 1.

    Raises:
        Exception: the error itself, if ``LIT_CREDIT_TRACEBACK`` is set.
    """
    if isinstance(error, ArgumentsError):
        print(error.line, file=sys.stderr)
        return 2
    if os.environ.get("LIT_CREDIT_TRACEBACK"):
        raise error
    cli = _cli_of(error)
    under_way = _is_under_way(getattr(cli, "trainer", None))
    if under_way and _is_bug(error):
        traceback.print_exception(error)
        part = "" if cli is None else blamed_part(error, cli)
        print(
            f"lit-credit: error: after the first step{part and f', in {part}'}: "
            f"{reason(error)}. If the traceback ends in code of your own, mend it there; if not, "
            "report it with the traceback. A `fit` goes on from its last checkpoint with "
            "`--ckpt_path last`.",
            file=sys.stderr,
        )
    else:
        # An error that stops a run under way is not the fault of an argument.
        line = _line(error, None if under_way else cli)
        print(f"lit-credit: error: {line}", file=sys.stderr)
    return 1


def line_of(error: Exception) -> str:
    """Return the line that :func:`report` prints for an error before the first step."""
    return error.reason if isinstance(error, ArgumentsError) else _line(error, _cli_of(error))


def reason(error: BaseException) -> str:
    r"""The message of an error in one line of bounded length.

    Example:
        >>> reason(ValueError("a\n  b")), reason(KeyError("a")), reason(KeyError())
        ('a b', "KeyError: 'a'", 'KeyError')
    """
    text = " ".join(str(error).split())
    if isinstance(error, UnicodeDecodeError):
        text = f"a file that should be text, such as a `--config`, is none: {error}."
    elif _is_out_of_memory(error):
        text = f"out of memory: {text}. Choose a smaller `batch_size` or net."
    elif not text:
        text = type(error).__name__
    elif not isinstance(error, (*_SELF_EXPLAINING, RuntimeError)):
        text = f"{type(error).__name__}: {text}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += ". Make room; the same command with `--ckpt_path last` goes on."
    return shortened(text)


def _line(error: Exception, cli: LightningCLI | None) -> str:
    root = _root(error)
    text = reason(root)
    part = "" if cli is None else blamed_part(root, cli) or blamed_part(error, cli)
    if not part and isinstance(root, OSError) and cli is not None:
        part = _folder_of(root, cli)
    if part and not text.startswith("the first batch "):
        text = f"{part}: {text}"
    if isinstance(root, _SELF_EXPLAINING) or _HINT in text or _is_out_of_memory(root):
        return text
    where = _own_line(root)
    return f"{text.rstrip('.')}{where and f' ({where})'}. {_HINT}"


def _root(error: BaseException) -> BaseException:
    """The original error, if jsonargparse has replaced it by one of its own."""
    while frames := _frames(error):
        if _package(frames[-1]) != "jsonargparse":
            break
        inner = error.__cause__ or error.__context__
        if inner is None:
            # jsonargparse fails on errors without text, and then chains no error. The original
            # error is still in its local variables.
            own = [frame.f_locals for frame in frames if _package(frame) == "jsonargparse"]
            met = [x for names in own for value in names.values() for x in _each(value)]
            others = [x for x in met if isinstance(x, Exception) and x is not error]
            return max(others, key=lambda x: len(_frames(x)), default=error)
        error = inner
    return error


def _each(value: Any) -> list[Any]:
    return value if type(value) is list else [value]


def _is_under_way(trainer: Trainer | None) -> bool:
    """Whether the first step is over."""
    return trainer is not None and any(
        isinstance(c, FirstStep) and c.is_over for c in callbacks_of(trainer)
    )


def _is_bug(error: Exception) -> bool:
    """Whether to show the traceback of an error after the first step.

    An error whose message was written for the user needs none.
    """
    if isinstance(error, MisconfigurationException | OSError) or _is_out_of_memory(error):
        return False
    packages = [_package(frame) for frame in _frames(error)]
    if packages[-1] in ("lit_credit", "lightning"):
        return not isinstance(error, ValueError | RuntimeError)
    foreign = any(name not in _KNOWN for name in packages[packages.index("lightning") :])
    return foreign or not isinstance(error, ValueError)


_KNOWN = frozenset(
    ("lit_credit", "lightning", "torch", "torchmetrics", "jsonargparse", *sys.stdlib_module_names)
) - {"__main__"}


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(
        error, MemoryError | torch.cuda.OutOfMemoryError
    ) or "can't allocate memory" in str(error)


def _cli_of(error: BaseException) -> LightningCLI | None:
    """The CLI in the error's frames. It is incomplete if a constructor raised the error."""
    for frame in _frames(error):
        if isinstance(found := frame.f_locals.get("self"), LightningCLI):
            return found
    return None


def _folder_of(error: OSError, cli: LightningCLI) -> str:
    """``trainer.default_root_dir`` if the file of the error lies in it, else an empty string."""
    trainer = getattr(cli, "trainer", None)
    place = "" if trainer is None else os.path.abspath(trainer.default_root_dir)
    within = place and os.path.abspath(str(error.filename)).startswith(place)
    return f"`trainer.default_root_dir`={place!r}" if within else ""


def _own_line(error: BaseException) -> str:
    """File and line of the innermost frame of the user's own code; empty if there is none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if _package(frame) not in _KNOWN and "site-packages" not in frame.f_code.co_filename:
            return f"{os.path.relpath(frame.f_code.co_filename)}, line {line}"
    return ""


def _frames(error: BaseException) -> list[FrameType]:
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]

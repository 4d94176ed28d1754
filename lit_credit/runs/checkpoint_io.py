"""Writing checkpoints atomically, and reading them without running code from the file."""

import errno
import io
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy

from lit_credit.runs.files import reason_of
from lit_credit.utils.both_packages import with_twins
from lit_credit.utils.paths import is_remote, local_path
from lit_credit.utils.private_names import load_file

__all__ = [
    "AtomicCheckpointIO",
    "check_is_of_lightning",
    "open_checkpoint",
    "read_checkpoint",
    "save_atomically",
    "write_checkpoint",
]


_CODE = re.compile(r"(?:GLOBAL|Unsupported class|Unsupported global:)\s+(?!GLOBAL)([\w.]+)")
"""How torch's errors name the code that a file would import."""
_SHOWN = 4


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old file, then replaces the old file in one step.

    Use it as ``Trainer(plugins=[AtomicCheckpointIO()])``; ``lit-credit`` does so by itself.
    Lightning writes to ``/tmp`` and moves the file. If ``/tmp`` is another file system, the move is
    a copy, and a kill or a full disk during the copy destroys the only ``last.ckpt``. Remote paths
    are written as Lightning does. Files are read with ``weights_only=True`` unless the caller says
    otherwise.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save; if the disk is full, raise OSError and leave the older checkpoint intact."""
        path = local_path(path, "ckpt_path")
        if storage_options is not None or is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        place = Path(path)
        scratch = place.with_name(f"{place.name}.partial")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, place)
        except OSError as error:
            _remove(scratch)
            older = "; the older one of that name is intact" if place.exists() else ""
            raise OSError(
                error.errno, f"{reason_of(error)}: a checkpoint is not saved{older}", str(place)
            ) from error
        except BaseException:
            _remove(scratch)
            raise

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load a checkpoint of Lightning.

        Raises:
            ValueError: as :func:`read_checkpoint`, and if Lightning did not save the file.
        """
        found = read_checkpoint(path, map_location, weights_only is not False)
        check_is_of_lightning(found, path)
        return found

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file, if it is there."""
        super().remove_checkpoint(local_path(path, "ckpt_path"))


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint as :func:`read_checkpoint`; tensors are loaded when they are used.

    A file that is not on this machine, or is not a zip file, is read as a whole.
    """
    if is_remote(path):
        return read_checkpoint(path)
    try:
        found: dict[str, Any] = torch.load(
            local_path(path), map_location="cpu", weights_only=True, mmap=True
        )
    except Exception:  # torch raises various errors; those of `read_checkpoint` name the file
        return read_checkpoint(path)
    return found


def read_checkpoint(
    path: str | Path, map_location: Any = "cpu", weights_only: bool = True
) -> dict[str, Any]:
    """Read the contents of a checkpoint.

    Args:
        path: path or URL of the file.
        map_location: as for ``torch.load``.
        weights_only: refuse all but tensors and plain data, so that nothing in the file is run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the path is a folder, or the file is truncated, is not a checkpoint, or holds
            data that ``weights_only`` refuses.
    """
    path = local_path(path, "ckpt_path")
    if not is_remote(path) and not get_filesystem(path).exists(path):
        raise FileNotFoundError(f"Checkpoint file not found: {path}")
    if Path(path).is_dir():
        files = ", ".join(sorted(map(str, Path(path).rglob("*.ckpt")))[:_SHOWN]) or "none"
        raise ValueError(f"{path} is a folder, expected a file. Checkpoints in it: {files}.")
    try:
        found = load_file(path, map_location=map_location, weights_only=weights_only)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, KeyError ...
        if (
            isinstance(error, OSError) and error.errno != errno.EINVAL
        ):  # which is of a seek by torch
            raise
        raise ValueError(_unreadable(path, error)) from error
    if not isinstance(found, dict):
        raise ValueError(_unreadable(path, TypeError(f"it holds a {type(found).__name__}")))
    return found


def check_is_of_lightning(found: Mapping[str, Any], source: Any) -> None:
    """Refuse a file that Lightning did not save; Lightning itself would raise a KeyError.

    Args:
        found: the contents of the file.
        source: the file, for the error.

    Raises:
        ValueError: if so; the error names the two ways to start from the file's weights.
    """
    if "pytorch-lightning_version" not in found:
        raise ValueError(
            f"{source} holds weights that Lightning has not saved, and no state of a run, so no "
            "run can go on from it. To start from its weights, give it as `--init_from` in "
            "place of `--ckpt_path`; in Python call `load_weights(rule.net, FILE)` of "
            "lit_credit.runs.foreign_weights."
        )


def save_atomically(trainer: Trainer) -> None:
    """Make a Trainer use :class:`AtomicCheckpointIO`, unless it has a checkpoint IO of its own."""
    if _has_plain_io(trainer.strategy):
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()


def write_checkpoint(trainer: Trainer, checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, atomically unless the Trainer has a checkpoint IO of its own.

    Every rank must call this. The Trainer's checkpoint IO is unchanged afterwards.
    """
    strategy = trainer.strategy
    before = strategy.checkpoint_io
    try:
        save_atomically(trainer)
        strategy.save_checkpoint(checkpoint, str(path))
    finally:
        strategy.checkpoint_io = before
    strategy.barrier("write_checkpoint")


def _has_plain_io(strategy: Any) -> bool:
    kinds: tuple[Any, ...] = with_twins(Strategy)
    takes_any = any(type(strategy).checkpoint_io is kind.checkpoint_io for kind in kinds)
    return takes_any and type(strategy.checkpoint_io) in with_twins(TorchCheckpointIO)


def _unreadable(path: str | Path, error: Exception) -> str:
    place = Path(path)
    size = f" ({place.stat().st_size} bytes)" if place.is_file() else ""
    code = _CODE.search(str(error))
    if code is not None:
        return (
            f"{path}{size} is no checkpoint of tensors and plain data: it holds {code[1]}, and "
            "reading that can run code. Nothing was read. If you trust the file, save its "
            "`state_dict` alone in another file; Lightning's functions take `weights_only=False`."
        )
    text = str(error).rpartition("WeightsUnpickler error:")[2]  # the part before is for developers
    reason = " ".join(text.strip().split("\n", 1)[0].split())[:120] or type(error).__name__
    if is_remote(path):
        return f"{path} cannot be read: {reason}"
    others = sorted(other.name for other in place.parent.glob("*.ckpt") if other != place)
    remedy = f"Others in that folder: {', '.join(others)}." if others else "Start anew without it."
    return f"{path}{size} is cut off, or no checkpoint: it cannot be read ({reason}). {remedy}"


def _remove(scratch: Path) -> None:
    with suppress(OSError):  # the user must see the earlier error, not this one
        scratch.unlink(missing_ok=True)

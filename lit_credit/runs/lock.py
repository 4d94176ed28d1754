"""Locking folders and tables, so that one process at a time writes to them."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["hold", "hold_folder", "is_abandoned", "locks_above"]

_POLL_SECONDS = 0.2
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LOCKS = ("lock", "cell.lock")
"""Endings of lock files beside a folder: of a run or a sweep, and of a cell of a sweep."""
_HELD: set[Path] = set()
"""Files held by this process, since the system never locks a process out of its own files."""


@contextlib.contextmanager
def hold(path: Path, what: str, patience: float = 0) -> Iterator[None]:
    """Hold a lock file, which names process and host, for the length of a ``with`` block.

    A killed process leaves its file behind. On its own host that file locks nobody out, because the
    system knows whether the process still runs. On other hosts the system cannot know this, so the
    file locks everybody out until a person removes it.

    Folders above the file are made. Those that are still empty at the end are removed.

    Args:
        path: path of the lock file.
        what: name of the locked thing, for the error.
        patience: seconds to wait for a process that is about to end.

    Raises:
        ValueError: if another process, or this one, holds the file.
        OSError: if the file cannot be made.
    """
    path = Path(os.path.realpath(path))
    made: list[Path] = []
    deadline = time.monotonic() + patience
    try:
        while (descriptor := _take(path, made)) is None:
            if time.monotonic() >= deadline:
                raise ValueError(_refusal(path, what))
            time.sleep(_POLL_SECONDS)
        _HELD.add(path)
        try:
            yield
        finally:
            _HELD.discard(path)
            path.unlink(missing_ok=True)  # before the lock ends: nobody may lock what is removed
            os.close(descriptor)
    finally:
        _remove_empty(made)


@contextlib.contextmanager
def hold_folder(folder: str | Path, patience: float = 0) -> Iterator[None]:
    """Hold a folder by a lock file beside it, as :func:`hold` does.

    The folder is made at once, so that loggers that number their folders count it. It is removed if
    it is empty at the end. The lock file lies outside it if possible, because loggers warn about
    folders that hold files.

    Args:
        folder: the folder; made if missing. A remote folder (``s3://...``) is not held.
        patience: seconds to wait for a process that is about to end.

    Raises:
        ValueError: if another process, or this one, holds the folder.
        OSError: if the folder cannot be made.
    """
    if "://" in str(folder):
        yield
        return
    place = Path(os.path.realpath(folder))
    path = place.with_name(f"{place.name}.lock")
    if place.is_dir() and not os.access(place.parent, os.W_OK):
        path = place / "run.lock"
    with hold(path, str(folder), patience):
        made = _make_folders(place)
        try:
            yield
        finally:
            _remove_empty(made)


def is_abandoned(path: Path) -> bool:
    """Whether a file is the lock of a process of this host that has ended.

    The lock is not tried: a process that has just made the file would be refused. So the number of
    a process that has ended counts as alive while another process has it.

    Args:
        path: the file. One that :func:`hold` has not written is not abandoned.
    """
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(holder, dict) or holder.keys() != _own().keys():
        return False
    return holder["host"] == _own()["host"] and _is_dead(holder["pid"])


def locks_above(folder: Path) -> list[Path]:
    """The lock files of a folder, and of the folders above it, that exist."""
    place = Path(os.path.realpath(folder))
    found = [
        at.with_name(f"{at.name}.{end}") for at in (place, *place.parents[:-1]) for end in _LOCKS
    ]
    return [path for path in (place / "run.lock", *found) if path.is_file()]


def _take(path: Path, made: list[Path]) -> int | None:
    """Lock the file; return its descriptor, or None if another process holds it."""
    while path not in _HELD:  # a held file is not even opened: closing it would end the lock
        made += _make_folders(path.parent)
        try:
            descriptor, is_new = _open(path)
        except FileNotFoundError:
            continue  # its maker has just removed the folder
        except PermissionError:
            if path.exists():
                return None  # another user's file
            raise
        try:
            locked = _lock(descriptor)
            if locked and not _is_at(descriptor, path):
                os.close(descriptor)
                continue  # its holder has just removed the file
            if locked is not False and (is_new or _is_free(_holder(descriptor), locked is None)):
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, json.dumps(_own()).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None
    return None


def _make_folders(folder: Path) -> list[Path]:
    """Make the folder; return the folders that were made, outermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):  # it holds files by now
            folder.rmdir()


def _open(path: Path) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
    except FileExistsError:
        return os.open(path, os.O_RDWR), False


def _lock(descriptor: int) -> bool | None:
    """Whether this process has the lock now; None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        # Unlike `flock`, not inherited by workers: those of a killed run must not hold its lock.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_free(holder: dict[str, Any], without_locks: bool) -> bool:
    """Whether an existing lock file, which no process of this host has locked, may be taken."""
    if holder.get("host", _own()["host"]) != _own()["host"]:
        return False
    return _is_dead(holder.get("pid")) if without_locks else True


def _is_dead(pid: Any) -> bool:
    if fcntl is None or not isinstance(pid, int):
        return False  # on Windows `kill` ends the process that it asks for
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False


def _own() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}


def _holder(descriptor: int) -> dict[str, Any]:
    # Read by the descriptor that holds the lock: closing another one would end the lock.
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        found = json.loads(os.read(descriptor, 4096))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(path: Path, what: str) -> str:
    if path in _HELD:
        return f"{what} is in use by this process already. Wait until that has ended."
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        host, who = holder["host"], f"process {holder['pid']} of host {holder['host']}"
        who += f" since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        host, who = None, "another process"
    remedy = "Wait until it has ended."
    if host != _own()["host"]:
        remedy += f" If it has, without removing {str(path)!r}, remove that file."
    return f"{what} is in use by {who}. {remedy}"

"""Writing the files of a run, whose folder may be full or read-only."""

import errno
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lit_credit.utils.paths import local_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_folder", "reason_of", "save_figure", "spared", "write_files"]

_ANOTHER = "Choose another folder with `Trainer(default_root_dir=...)` or the logger's `save_dir`."


def check_folder(folder: str | Path, remedy: str = _ANOTHER) -> None:
    """Refuse a folder that cannot be made or written to; the check makes no folder.

    Args:
        folder: folder of files to write later.
        remedy: how to choose another folder, for the error.

    Raises:
        ValueError: if the nearest existing path, the folder or one above, is a file or read-only.
    """
    path = Path(local_path(folder, "folder")).absolute()
    nearest = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        trouble = f"{nearest} is no folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        trouble = f"{nearest} is read-only for this user"
    else:
        return
    raise ValueError(f"{path} cannot be written: {trouble}. {remedy}")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files, or none if one of them cannot be written.

    Args:
        folder: folder of the files; made if it is missing.
        files: name to content; older files are replaced.

    Raises:
        OSError: if a file cannot be written.
    """
    is_new = not folder.exists()
    scratch = {name: folder / f"{name}.partial" for name in files}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in files:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, "Is a folder", str(folder / name))
            scratch[name].write_bytes(files[name])
        for name in files:
            scratch[name].replace(folder / name)
    except OSError:
        for path in scratch.values():
            path.unlink(missing_ok=True)
        if is_new:
            folder.rmdir()
        raise


@contextmanager
def spared(path: Path) -> Iterator[None]:
    """Turn an error in writing a file that the run does not need into a warning."""
    try:
        yield
    except OSError as error:
        warnings.warn(
            f"{path} is not written: {reason_of(error)}. The run goes on without it.", stacklevel=2
        )


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure; warn if it cannot be written."""
    with spared(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def reason_of(error: OSError) -> str:
    """The system's reason for an error, without its number and path."""
    return error.strerror or str(error)

"""Walking through folders, also through links to folders."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["files_below", "walk"]


def walk(
    path: str | Path, onerror: Callable[[OSError], object] | None = None, *, links: bool = True
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk as ``os.walk`` does, top down, through each real folder once.

    Links to folders are followed after everything that is reached without them, so that a folder
    has the path without a link if there is one. A link to a folder that contains the link is not
    followed: it would lead out of ``path``, or in a circle.

    Args:
        path: the folder to begin at; it may be a link itself.
        onerror: called with the error of a folder that cannot be read.
        links: whether links to folders are followed.

    Yields:
        A folder, the names of the folders in it, and those of its files. Names that are removed
        from the list of folders are not followed.
    """
    seen: set[str] = set()
    starts = [os.fspath(path)]
    while starts:
        later: list[str] = []
        for start in starts:
            for at, folders, files in os.walk(start, onerror=onerror):
                real = os.path.realpath(at)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                yield at, folders, files
                later += (place for name in folders if os.path.islink(place := f"{at}/{name}"))
        starts = [link for link in sorted(later) if links and not _contains_itself(link)]


def files_below(path: str | Path, ending: str) -> list[Path]:
    """The files with an ending in a folder and anywhere below it, also behind links, sorted.

    Args:
        path: the folder; without one there are no files.
        ending: such as ``.ckpt``.
    """
    return sorted(
        Path(at, name) for at, _, files in walk(path) for name in files if name.endswith(ending)
    )


def _contains_itself(link: str) -> bool:
    target = Path(os.path.realpath(link))
    return Path(os.path.realpath(os.path.dirname(link))).is_relative_to(target)

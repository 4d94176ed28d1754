"""Representations of a run's probe on disk, as centred Gram matrices."""

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from lit_credit.runs.files import reason_of
from lit_credit.utils.paths import is_remote, local_path

__all__ = ["SavedGrams", "find_grams", "read_grams"]

_ARRAYS = ("grams", "names", "rows", "step", "digest")


@dataclass(frozen=True, eq=False)
class SavedGrams:
    """Representations of some layers, known up to a rotation, an offset and a scale.

    Attributes:
        grams: (l, k) float32, of each layer the entries above the diagonal of its centred Gram
            matrix, k = rows (rows - 1) / 2; NaN for a layer without one.
        names: of the layers.
        rows: samples of the probe.
        step: optimizer steps taken.
        digest: of the probe, with unusual arguments of the measurement; "" if it is not known.
    """

    grams: npt.NDArray[np.float32]
    names: list[str]
    rows: int
    step: int
    digest: str

    def to_bytes(self) -> bytes:
        """The contents of an ``.npz`` file, which are always the same ones."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            grams=self.grams,
            names=np.array(self.names, dtype=np.str_),
            rows=self.rows,
            step=self.step,
            digest=self.digest,
        )
        return buffer.getvalue()

    @classmethod
    def of_bytes(cls, data: bytes) -> "SavedGrams":
        """Read what :meth:`to_bytes` returned.

        Raises:
            ValueError: if it is anything else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                grams, names, rows, step, digest = (file[name] for name in _ARRAYS)
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError("it does not hold what `Representations` writes") from error
        found = cls(grams, [str(n) for n in names], int(rows), int(step), str(digest))
        if grams.shape != (len(names), found.rows * (found.rows - 1) // 2):
            raise ValueError(f"it holds {grams.shape} entries for {found.rows} rows")
        return found


def read_grams(path: Path) -> SavedGrams:
    """Read the file of a run.

    Raises:
        ValueError: naming the file, if it cannot be read.
    """
    try:
        return SavedGrams.of_bytes(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}.") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}. Remove it, or measure again.") from error


def find_grams(
    told: Mapping[str, Any], own: Path | None, checkpoint: Any = None
) -> SavedGrams | None:
    """Find the file that a checkpoint tells of, which is known by its contents; None without it.

    It is searched where the resumed run writes, where it was, and, for a run that was moved, at the
    same place relative to the folders above the checkpoint.

    Args:
        told: ``path`` and ``crc`` of the file.
        own: the file that the resumed run writes, or None.
        checkpoint: the file that the run is resumed from, or None.
    """
    for path in dict.fromkeys(_places(Path(told["path"]), own, checkpoint)):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if zlib.crc32(data) == told["crc"]:
            return SavedGrams.of_bytes(data)
    return None


def _places(saved: Path, own: Path | None, checkpoint: Any) -> Iterator[Path]:
    yield from [saved] if own is None else [own, saved]
    if checkpoint and not is_remote(checkpoint):
        ends = accumulate(reversed(saved.parts[1:]), lambda end, part: str(PurePath(part, end)))
        folders = Path(local_path(checkpoint, "ckpt_path")).resolve().parents
        yield from (folder / end for end in ends for folder in folders)

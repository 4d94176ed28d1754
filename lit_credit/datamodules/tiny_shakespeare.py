"""One megabyte of Shakespeare."""

from hashlib import sha256
from pathlib import Path

from lit_credit.datamodules.char_text import CharText
from lit_credit.datamodules.network import any_reachable
from lit_credit.utils.paths import local_path

__all__ = ["TinyShakespeare"]

_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class TinyShakespeare(CharText):
    """1,115,394 characters of Shakespeare's plays, 65 symbols; see :class:`CharText`.

    Read from ``<root>/tinyshakespeare/input.txt``; downloaded if it is not there. Its checksum is
    verified either way.

    Args:
        root: folder of all data sets.
        download: download the file if it is missing.
        block_size: characters T in a window.
        steps_per_epoch: training batches in an epoch.
        batch_size: windows in a training batch, over all devices together.
        val_batch_size: windows in a validation batch, over all devices together.
        val_fraction: share of the text, at its end, for validation.
        val_windows: number of validation windows, evenly spread; None takes all.
        seed: seed of the training windows; None takes the one given to ``seed_everything``, or 0
            if there was none. A resumed run keeps the one it had.

    Reference:
        A. Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks" (2015),
        https://github.com/karpathy/char-rnn.
    """

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        block_size: int = 64,
        steps_per_epoch: int = 100,
        batch_size: int = 32,
        val_batch_size: int = 128,
        val_fraction: float = 0.1,
        val_windows: int | None = None,
        seed: int | None = None,
    ) -> None:
        file = Path(local_path(root, "root"), "tinyshakespeare", "input.txt")
        super().__init__(
            str(file),
            block_size,
            steps_per_epoch,
            batch_size,
            val_batch_size,
            val_fraction,
            val_windows,
            seed,
        )
        self.file = file
        self.download = download

    def prepare_data(self) -> None:
        """Download the file if it is missing.

        Raises:
            ValueError: if it is missing and cannot be downloaded, or its checksum is wrong.
        """
        if not self.file.is_file():
            if not self.download:
                raise self._error("`download` is False")
            if not any_reachable([_URL]):
                raise self._error(f"no connection to {_URL}")
            try:
                # torchvision is slow to load.
                from torchvision.datasets.utils import download_url

                download_url(_URL, str(self.file.parent), self.file.name)
            except Exception as error:
                raise self._error(f"the download failed: {error!r}") from error
        if sha256(self.file.read_bytes()).hexdigest() != _SHA256:
            raise self._error("the file is damaged, its sha256 is wrong")

    def _error(self, reason: str) -> ValueError:
        return ValueError(
            f"TinyShakespeare: no usable data under `root`={str(self.file.parents[1])!r}; {reason}."
            f" Expected: {self.file} (sha256 {_SHA256}). Put the file there, let `root` name the"
            " folder that has it, or run once with `download`=True where there is a network."
            " `CharText` without `path` is the text that needs no files."
        )

"""Stand-ins for what a measurement cannot put back, and for what it must not write to."""

from typing import Any, NoReturn

from lit_credit.utils.late_lightning import misconfiguration

__all__ = ["Refused", "silenced"]

_HARMLESS = ("name", "mode", "closed", "encoding", "newlines", "buffer", "isatty", "fileno", "gi_")


class Refused:
    """Stands for an object that cannot be copied or compared, and raises where it is used.

    Args:
        kept: the object.
        path: where it was found.
    """

    def __init__(self, kept: Any, path: str) -> None:
        self._kept, self._path = kept, path

    def __getattr__(self, name: str) -> Any:
        """What does not change the object is given; the rest is refused."""
        if not name.startswith(("__", *_HARMLESS)):
            self._refuse()
        return getattr(self._kept, name)

    def __iter__(self) -> "Refused":
        """As an iterator's."""
        return self

    def __next__(self) -> Any:
        """Nothing can be taken."""
        self._refuse()

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Nothing can be called."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        kind = type(self._kept)
        name = kind.__qualname__
        full = name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
        raise misconfiguration(
            f"a measurement ran into `{self._path}`, a {full}, which it could not put back as it "
            "was: the training would go on from another place. Give the callback `loss`, or the "
            "module a method `batch_loss(batch)`, that does without it, or hold in its place what "
            "can be copied: a list and an index, a torch.Generator."
        )


def silenced(writer: Any) -> Any:
    """A logger or an experiment that looks like ``writer``, and writes nothing.

    Text, numbers and paths are those of ``writer``; what it calls does nothing, and neither does
    what that returns.
    """
    return _Silent(writer)


class _Silent:
    def __init__(self, kept: Any) -> None:
        object.__setattr__(self, "_kept", kept)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # for `isinstance(self.logger, TensorBoardLogger)` in a step
        return type(object.__getattribute__(self, "_kept"))

    def __getattr__(self, name: str) -> Any:
        if name == "experiment":
            return _NOTHING
        found = getattr(object.__getattribute__(self, "_kept"), name, _NOTHING)
        return found if isinstance(found, _DATA) else _NOTHING

    def __setattr__(self, name: str, value: Any) -> None: ...

    def __getitem__(self, key: Any) -> Any:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _NOTHING


class _Nothing:
    """Any attribute of it, item of it, and what it returns is itself."""

    def __call__(self, *_: Any, **__: Any) -> "_Nothing":
        return self

    def __getattr__(self, name: str) -> "_Nothing":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __setattr__(self, name: str, value: Any) -> None: ...

    def __getitem__(self, key: Any) -> "_Nothing":
        return self

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def __iter__(self) -> Any:
        return iter(())


_NOTHING = _Nothing()
_DATA = (str, int, float, type(None), dict, list, tuple)

"""Stand-ins for objects that cannot be restored, and for loggers that must not write."""

from typing import Any, NoReturn

from lit_credit.utils.late_lightning import misconfiguration

__all__ = ["Refused", "silenced"]

_HARMLESS = ("name", "mode", "closed", "encoding", "newlines", "buffer", "isatty", "fileno", "gi_")


class Refused:
    """Stands for an object that cannot be copied or compared, and raises when it is used.

    Args:
        kept: the object.
        path: where it was found.
    """

    def __init__(self, kept: Any, path: str) -> None:
        self._kept, self._path = kept, path

    def __getattr__(self, name: str) -> Any:
        """Return attributes that do not change the object; refuse the others."""
        if not name.startswith(("__", *_HARMLESS)):
            self._refuse()
        return getattr(self._kept, name)

    def __iter__(self) -> "Refused":
        """Return itself, as an iterator does."""
        return self

    def __next__(self) -> Any:
        """Refuse."""
        self._refuse()

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
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
    """Make a logger or experiment that looks like ``writer`` and writes nothing.

    Attributes that are text, numbers or containers are those of ``writer``. Calls do nothing, and
    neither do the objects that calls return.
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
    """Returns itself for every attribute, every item and every call."""

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

"""Sharing one context between several threads."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from types import TracebackType
from typing import Any

__all__ = ["Shared"]


class Shared:
    """Enter a context with the first ``with``, and leave it with the last, in any thread and order.

    Use it for contexts that change the whole process. If two threads each entered such a context
    alone, one would restore what the other had set.

    Args:
        make: makes the context.

    Example:
        >>> from contextlib import contextmanager
        >>> @contextmanager
        ... def told():
        ...     print("in")
        ...     yield
        ...     print("out")
        >>> shared = Shared(told)
        >>> with shared, shared:
        ...     pass
        in
        out
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._lock = Lock()
        self._inside = 0
        self._context: AbstractContextManager[Any] | None = None

    @property
    def is_entered(self) -> bool:
        """Whether a thread is inside."""
        return self._inside > 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._context is not None:
                self._context.__exit__(None, None, None)
                self._context = None

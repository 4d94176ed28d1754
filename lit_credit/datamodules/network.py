"""Checking whether a host is reachable before a download."""

import socket
from collections.abc import Sequence
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["any_reachable"]

PATIENCE = 30.0
"""Seconds within which a slow network answers; without a network the look-up fails at once."""


def any_reachable(urls: Sequence[str], seconds: float | None = None) -> bool:
    """Whether the host of any URL, or its proxy, accepts a connection.

    All hosts are tried at once in daemon threads. Threads that hang are abandoned when the time is
    up, because looking up a name has no timeout.

    Args:
        urls: http or https addresses.
        seconds: longest time to wait for all hosts together; None takes ``PATIENCE``.

    Returns:
        True as soon as a host answers; False when all failed or the time is up.

    Example:
        >>> any_reachable(["http://localhost:1/"])
        False
    """
    seconds = PATIENCE if seconds is None else seconds
    answers: Queue[bool] = Queue()
    for url in urls:
        Thread(target=lambda url=url: answers.put(_connects(url, seconds)), daemon=True).start()
    end = monotonic() + seconds
    try:
        return any(answers.get(timeout=max(0.0, end - monotonic())) for _ in urls)
    except Empty:
        return False


def _connects(url: str, seconds: float) -> bool:
    try:
        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme)
        if proxy and not proxy_bypass(parts.netloc):
            parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=seconds).close()
    except (OSError, ValueError):  # ValueError: a malformed proxy address
        return False
    return True

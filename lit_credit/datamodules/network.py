"""Whether a download could work, before it is tried."""

import socket
from collections.abc import Sequence
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["any_reachable"]

PATIENCE = 30.0
"""Seconds in which a slow line has answered; without a network looking up a name fails at once."""


def any_reachable(urls: Sequence[str], seconds: float | None = None) -> bool:
    """Whether the host of any of the URLs, or the proxy that stands for it, accepts a connection.

    All are tried at once, in threads that are left behind when time is up: looking up a name can
    hang, and takes no timeout.

    Args:
        urls: http or https addresses.
        seconds: how long to wait altogether for one that neither answers nor fails; None takes
            ``PATIENCE``.

    Returns:
        True as soon as one answers, False when all failed or the time is up.

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

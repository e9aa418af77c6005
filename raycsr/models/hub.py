"""The hub that timm takes weights from: where it does not answer, that is known in seconds, not after its retries."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

_SECONDS = 5.0  # that the hub may take to accept a connection


@contextmanager
def offline_without_network() -> Iterator[None]:
    """Where the hub does not answer, what it has is taken from the cache of this machine alone while this lasts."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    """Whether the server of a URL accepts a connection; behind a proxy it may, and only the proxy knows."""
    parts = urlsplit(url)
    if parts.scheme in getproxies():
        return True
    try:
        socket.create_connection(
            (parts.hostname or "", parts.port or socket.getservbyname(parts.scheme)), _SECONDS
        ).close()
    except OSError:
        return False
    return True

"""Files by URL, fetched whole into a folder before they are used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tinymim.errors import TinymimError
from tinymim.files import write_atomically

SECONDS = 5  # until a server that does not answer is given up


def is_url(place: str) -> bool:
    """Whether ``place`` is no path."""
    return "://" in place


def local(place: str, folder: Path) -> Path:
    """Path on this machine of the file at a path or URL, fetched or not. What was fetched is not fetched again."""
    if not is_url(place):
        return Path(place)
    return folder / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}-{_name(place)}"


def _name(url: str) -> str:
    """The last part of a URL's path, without its query, which may be long, and secret."""
    return urlsplit(url).path.rpartition("/")[2][-80:]


def fetch(url: str, target: Path) -> None:
    """Download ``url``, whole or not at all; fsspec knows http, s3, gs and others, some with a package of their own.

    Raises:
        TinymimError: no such file, no network, no package for the protocol, or no room; at once.
    """
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url, **_impatient(url))
        write_atomically(target, lambda temporary: files.get_file(path, str(temporary)))
    except Exception as error:  # each protocol has errors of its own
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        supported = not isinstance(error, ImportError) and "Protocol not known" not in str(error)
        remedy = "is there a network, and is the address right?"
        if not supported:
            remedy = "fsspec needs a package for this protocol"
        raise TinymimError(f"{url} cannot be fetched ({reason}): {remedy}") from error


def _impatient(url: str) -> dict[str, Any]:
    """Options of the protocol that have it give up on a silent server."""
    protocol = url.partition("://")[0]
    if protocol in ("http", "https"):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, connect=SECONDS, sock_connect=SECONDS, sock_read=3 * SECONDS)
        return {"client_kwargs": {"timeout": limits}}
    if protocol in ("s3", "s3a"):
        return {"config_kwargs": {"connect_timeout": SECONDS, "retries": {"max_attempts": 1}}}
    return {}

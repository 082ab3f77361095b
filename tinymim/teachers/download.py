"""Files from the network: a quick look whether there is one, and a download that is whole or not at all."""

from __future__ import annotations

import base64
import functools
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tinymim import __version__, files
from tinymim.errors import TinymimError
from tinymim.safety.console import PlainConsole
from tinymim.safety.escaping import address
from tinymim.teachers import card as cards

PATIENCE = 3.0  # seconds to wait for a connection
SLOWEST = 1000  # bytes a second, over STALLED seconds, below which it is given up
STALLED = 30.0  # seconds without a byte after which a download is given up
CHUNK = 1 << 20

_asking: ContextVar[bool] = ContextVar("asking", default=True)


@contextmanager
def asking_nobody(quiet: bool = True) -> Iterator[None]:
    """Within it, if ``quiet``, no server is asked for anything: whoever looks at a file of others tells nobody."""
    token = _asking.set(_asking.get() and not quiet)
    try:
        yield
    finally:
        _asking.reset(token)


def unreachable(url: str) -> str | None:
    """Why nothing can be fetched from ``url`` now, or ``None``; answers within :data:`PATIENCE` seconds."""
    if not _asking.get():
        return "no server is asked where a file is only looked at"
    if url.startswith(constants.ENDPOINT) and constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        wanted = urlsplit(url)
        proxy = urllib.request.getproxies().get(wanted.scheme)
        through = urlsplit(proxy) if proxy and not urllib.request.proxy_bypass(wanted.netloc) else wanted
        port = through.port or (443 if through.scheme == "https" else 80)
    except ValueError as error:
        return "it is no address" + ("" if "@" in url else f" ({error})")  # which may quote a password
    return _no_connection(str(through.hostname), port)


@functools.cache
def _no_connection(host: str, port: int) -> str | None:
    """Why no connection can be had. A resolver without network takes up to half a minute to say so: no need to wait."""
    answers: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
            answers.append(None)
        except (OSError, ValueError) as error:  # a ValueError of a name that no host can have
            answers.append(f"no connection to {host} ({getattr(error, 'strerror', None) or error})")

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answers[0] if answers else f"no connection to {host} within {PATIENCE:g} seconds"


def download(url: str, place: Path, sha256: str | None = None) -> str:
    """Fetch ``url``, http or https, into ``place`` with a progress bar, whole or not at all; its sha256.

    Raises:
        TinymimError: no connection, an answer that is no such file, or one cut short or of another ``sha256``.
    """
    if problem := unreachable(url):
        raise TinymimError(f"{address(url)} cannot be fetched: {problem}")
    digest = ""

    def write(temporary: Path) -> None:
        nonlocal digest
        _receive(url, temporary)
        digest = files.sha256(temporary)
        if sha256 and digest != sha256:
            raise TinymimError(
                f"{address(url)} has sha256 {digest}, and {sha256} was expected: it is damaged or another file"
            )

    try:
        files.write_atomically(place, write)
    except urllib.error.HTTPError as error:
        raise TinymimError(f"{address(url)} cannot be fetched: the server says {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise TinymimError(f"{address(url)} cannot be fetched into {place}: {reason}") from None
    return digest


def _receive(url: str, temporary: Path) -> None:
    with _answer(url) as answer, temporary.open("wb") as file, _bar() as bar:
        if answer.headers.get_content_type() == "text/html":
            raise TinymimError(f"{address(url)} gave a web page, not a file; download it by hand")
        length = answer.headers.get("Content-Length") or ""
        size = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0  # without, the answer's end is the file's
        task = bar.add_task(Path(urlsplit(url).path).name, total=size or None)
        received = before = 0
        since = time.monotonic()
        while piece := answer.read1(CHUNK):  # what has come, and does not wait for a whole one
            file.write(piece)
            received += len(piece)
            bar.update(task, completed=received)
            if (spent := time.monotonic() - since) > STALLED:
                if received - before < SLOWEST * spent:
                    raise TinymimError(
                        f"{address(url)} gives less than {SLOWEST:,} bytes a second, and was given up after "
                        f"{received:,}; try again later, or download it by hand"
                    )
                since, before = time.monotonic(), received
    if received < size:
        raise TinymimError(f"{address(url)} was cut off after {received} of {size} bytes; try again")


def _answer(url: str) -> http.client.HTTPResponse:
    """Open ``url`` with the user and password in it, if any, which go to its own host alone; its headers come within
    :data:`STALLED` seconds, however slowly a server gives them."""
    parts = urlsplit(url)
    request = urllib.request.Request(
        parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        headers={"User-Agent": f"tinymim/{__version__}"},
    )
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(urllib.request.urlopen(request, timeout=STALLED))
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(STALLED)
    if not answers:
        raise TinymimError(f"{address(url)} gave no answer within {STALLED:g} seconds; try again later")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _bar() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=PlainConsole(stderr=True))


def fetch_weights(card: cards.Card, record: bool) -> None:
    """Download a card's weights to where they belong, and print what was written; ``record`` writes their sha256 into
    the card, if it has none.

    Raises:
        TinymimError: no network, or no file; the message says where to get it and where to put it.
    """
    if path := card.weights_path():
        print(f"{card.name}: the weights are here already, at {path}")
        return
    if not card.address:
        raise TinymimError(f"{card.name} has no address that a program can fetch; {card.how_to_get()}")
    card.check_writable()
    if record and not card.sha256:
        card.check_recordable()
    try:
        digest = download(card.address, card.place, card.sha256)
    except TinymimError as error:
        raise TinymimError(f"{error}; {card.by_hand()}") from None
    except KeyboardInterrupt:
        raise TinymimError(f"{card.name}: the download was interrupted, and nothing of it is left") from None
    check = "as its card says" if card.sha256 else "which its card does not say"
    if record and not card.sha256:
        check = f"now written into {card.record_sha256(digest)}"
    print(f"wrote {card.place} ({card.place.stat().st_size / 1e6:.1f} MB), sha256 {digest}, {check}")
    print(f"licence {cards.terms(card.licence)}")

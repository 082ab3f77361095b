"""A folder of the cache: what one teacher gives for one data set, and who uses it.

Its name is the hash of its key: of all that determines the numbers in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.safety import text
from tinymim.system import disk
from tinymim.teacher_cache.forms import Form
from tinymim.teacher_cache.records import Records, opened, stored
from tinymim.vit.backbone import Backbone

FORMAT = 1  # goes up with any change of what a record means: of the reader, the views, or the files
KEY = "key.json"
USE = "in_use"  # is locked, shared, by everybody who has the folder open
OPEN = 32  # the most views and taps whose files are open at once, two each


class Folder:
    """One folder, open, for the ``length`` images of a data set. ``about`` has names of teacher and data, for people;
    ``damaged`` is told what was found to be wrong.

    Raises:
        TinymimError: it holds another key than its name says, or none.
        OSError: it cannot be made or written.
    """

    def __init__(
        self, root: Path, key: dict[str, Any], about: dict[str, str], length: int, damaged: Callable[[str], None]
    ):
        self.path, self.length, self._damaged = root / name_of(key, length), length, damaged
        self._open: dict[tuple[str, int], Records] = {}
        self._use = _taken(self.path)
        self._check(key, about)

    def _check(self, key: dict[str, Any], about: dict[str, str]) -> None:
        """See that this very key is noted here; note it in a folder that is new, before anything else is written."""
        place = self.path / KEY
        if not place.exists() and not any(self.path.glob("*.rec")):
            files.write_json(place, {"key": key, "about": about})
        noted = read_key(self.path)
        if noted is None or noted.get("key") != text.plain(key, "a key"):
            raise TinymimError(
                f"teacher_cache: {place} does not say what lies beside it; `tinymim cache clear {self.path.name} --dir "
                f"{self.path.parent}` makes room for it to be computed anew"
            )
        with contextlib.suppress(OSError):
            os.utime(place)  # when it was used last

    def records(self, form: Form, view: int) -> Records:
        """Records of a tap and a view.

        Raises:
            OSError: they cannot be opened.
        """
        place = (form.name, view)
        if place in self._open:
            self._open[place] = self._open.pop(place)  # the one used last comes last
        else:
            path = self.path / f"{form.name}.view{view}.rec"
            self._open[place] = Records(path, self.length, form.size, self._damaged)
        if len(self._open) > OPEN:  # an epoch reads one view, and a process may have few files open
            self._open.pop(next(iter(self._open))).close()
        return self._open[place]

    def close(self) -> None:
        """Let go of it."""
        for records in self._open.values():
            records.close()
        self._open.clear()
        os.close(self._use)


def key_of(teacher: Backbone, sha256: str, precision: str, data: dict[str, Any], view_seed: int) -> dict[str, Any]:
    """The key, in plain values.

    Not in it are the taps, views and number of images, by which the files of a folder are named or sized, and the
    kind of device, on which only the last bits depend.

    Args:
        teacher: whole, not cut at a target block; sizes are enough.
        sha256: of its weights' file.
        precision: that it computes in.
        data: ``identity()`` of the data set.
        view_seed: of its views.
    """
    network = {**teacher.architecture.record(), "heads": teacher.heads}
    sizes = {"image_size": teacher.image_size, "grid": teacher.grid}  # positions are resampled to the grid
    key = {
        "format": FORMAT,
        "teacher": {"sha256": sha256, **network, **sizes},
        "precision": precision,
        "data": data,
        "view_seed": view_seed,
    }
    return json.loads(json.dumps(key))  # tuples and lists are the same to a reader


def digest(key: dict[str, Any]) -> str:
    """Its hash, in 16 hex digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def name_of(key: dict[str, Any], length: int) -> str:
    """Name of the folder for ``length`` images under ``key``."""
    return f"{digest(key)}_{length}"


def filled(path: Path, form: Form, length: int) -> dict[int, int]:
    """Count the records of a tap by view, in a folder that need not exist; makes nothing, and leaves nothing open."""
    there = {}
    for place in path.glob(f"{form.name}.view*.crc"):
        number = place.name.removeprefix(f"{form.name}.view").removesuffix(".crc")
        if number.isdecimal():
            with contextlib.suppress(OSError):
                there[int(number)] = stored(place, length)[0]
    return there


def _taken(path: Path) -> int:
    """A descriptor that shows that ``path``, which is made, is in use; whoever clears it meanwhile is waited for."""
    check_own(path)
    for _ in range(100):
        path.mkdir(parents=True, exist_ok=True)
        try:
            use = opened(path / USE)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks
            disk.lock(use, shared=True, wait=True)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(use).st_ino == os.stat(path / USE).st_ino:  # noqa: PTH116
                return use
        os.close(use)
        time.sleep(0.01)
    raise TinymimError(f"teacher_cache: {path} is taken away again and again")


def check_own(path: Path) -> None:
    """Raise where a folder of the cache is a link: nothing is made, cut to length or removed where that leads."""
    if path.is_symlink():
        raise TinymimError(
            f"teacher_cache: {path} is a link to {path.resolve()}, and the cache's folders lie in it themselves; "
            "remove the link by hand, and name a cache on another disk by teacher_cache_dir"
        )


def read_key(folder: Path) -> dict[str, Any] | None:
    """Content of ``key.json``: ``key`` and ``about``; ``None`` where it is missing or damaged."""
    path = folder / KEY
    try:
        return text.mapping(text.read_json(path, str(path)), str(path))
    except TinymimError:
        return None


@dataclass
class CacheFolder:
    """A folder as ``tinymim cache list`` shows it."""

    path: Path  # of the folder
    # names of teacher and data, and where the data lies; empty where its key is missing or damaged
    about: dict[str, str]
    precision: str  # that the teacher computed in; likewise
    sha256: str  # of its weights; likewise
    size: int  # bytes on disk
    taps: list[str] = field(default_factory=list)  # names of what is stored
    views: int = 0  # how many
    full: float = 0.0  # share of the records of those taps and views that are there
    used: float = 0.0  # when a run opened it last, seconds since 1970


def entries(root: Path) -> list[CacheFolder]:
    """The folders of the cache at ``root``, the one used last first."""
    folders = [_entry(path) for path in root.iterdir() if _is_folder(path)] if root.is_dir() else []
    return sorted(folders, key=lambda entry: -entry.used)


def _is_folder(path: Path) -> bool:
    """Whether a cache made it: nothing else is ever cleared."""
    return path.is_dir() and not path.is_symlink() and ((path / USE).is_file() or (path / KEY).is_file())


def _entry(path: Path) -> CacheFolder:
    noted = read_key(path) or {}
    about, key = (_texts(noted.get(part)) for part in ("about", "key"))
    whole = noted.get("key")
    sha256 = _texts(whole.get("teacher") if isinstance(whole, dict) else None).get("sha256", "")
    entry = CacheFolder(path, about, key.get("precision", ""), sha256, occupied(path), used=path.stat().st_mtime)
    with contextlib.suppress(OSError):
        entry.used = (path / KEY).stat().st_mtime
    shares = dict(_stored(path))
    parts = [file.stem.rpartition(".view") for file in shares]
    entry.taps, entry.views = sorted({tap for tap, _, _ in parts}), len({view for _, _, view in parts})
    entry.full = sum(shares.values()) / len(shares) if shares else 0.0
    return entry


def _texts(part: Any) -> dict[str, str]:
    return {name: value for name, value in part.items() if isinstance(value, str)} if isinstance(part, dict) else {}


def _stored(path: Path) -> Iterator[tuple[Path, float]]:
    """Files of checksums, and the share of their records that is there; none that is no regular file."""
    for file in path.glob("*.crc"):
        with contextlib.suppress(OSError):
            there, length = stored(file)
            yield file, there / max(length, 1)


def occupied(path: Path) -> int:
    """Bytes that the files in a folder take on disk, where sparse ones take less than their length."""
    total = 0
    for file in path.glob("*"):
        with contextlib.suppress(OSError):
            total += disk.size_on_disk(file)
    return total


def remove(path: Path) -> None:
    """Take a folder of the cache away.

    Raises:
        TinymimError: a run has it open, it is a link, or it cannot be removed.
    """
    check_own(path)
    try:
        use = opened(path / USE)
        try:
            if not disk.lock(use):
                raise TinymimError(f"{path.name} is in use by a run; clear it when that has ended")
            away = Path(tempfile.mkdtemp(prefix=".cleared.", dir=path.parent))
            path.replace(away / path.name)  # a folder replaces no other on every system
            shutil.rmtree(away)
        finally:
            os.close(use)
    except OSError as error:
        raise TinymimError(f"{path} cannot be removed: {error.strerror}") from None

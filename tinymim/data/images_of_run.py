"""The images that a run is of: what its checkpoints note of them, and what is said where it goes on with others.

Noted are the number, a hash of names and labels, a hash of the files' sizes, and when the newest was written; of
data without files a hash of some images. Sizes come before times, for a copied folder has other times: those tell
something only where few files are newer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinymim.data.repeated import content_hash

LOOKED_AT = 10_000
"""Files whose size and time are looked at, evenly spread: 30 ms; those of a million take seconds, or on a network disk
minutes."""

PARTS = {
    "train": ("the images to train on", "the steps are not those of one run"),
    "held_out": ("the held-out images", "figures before and after are of different images"),
}
"""Parts of a data module: for people, and what follows from others."""


class Change(NamedTuple):
    """Other images than before.

    Args:
        line: of it, for people.
        certain: false where files were written anew, and may hold what they held.
    """

    line: str
    certain: bool


def notes(parts: dict[str, Any]) -> dict[str, Any]:
    """Number, contents, sizes and newest time, in nanoseconds, of the data sets of a data module, by part; ``None``
    where one has no such. Looks at up to :data:`LOOKED_AT` files of each."""
    return {part: _noted(images) for part, images in parts.items() if part in PARTS and images is not None}


def _noted(images: Any) -> dict[str, Any]:
    note: dict[str, Any] = {"images": len(images), "contents": None, "sizes": None, "newest": None}
    if contents := getattr(images, "contents_hash", None):
        note["contents"] = contents()
        if len(files := images.looked_at(LOOKED_AT)):
            note |= {"sizes": content_hash(files[:, 0]), "newest": int(files[:, 1].max())}
    if sampled := getattr(images, "sampled", None):
        note["sampled"] = sampled()
    return note


def changes(parts: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Changes between two :func:`notes`, one a part at most.

    Args:
        parts: the data sets as they are now.
        before: as a checkpoint has them, which may be an older one that lacks some.
        now: the notes on ``parts``.
    """
    differing = []
    for part, (what, then) in PARTS.items():
        old, new = before.get(part, before if part == "train" else None), now.get(part)  # older ones have that alone
        if isinstance(old, dict) and new and (how := _difference(parts[part], old, new)):
            text, certain = how
            line = f"have changed ({text}): {then}" if certain else f"may have changed ({text}): if so, {then}"
            differing.append(Change(f"{what} {line}", certain))
    return differing


def _difference(images: Any, old: dict[str, Any], new: dict[str, Any]) -> tuple[str, bool] | None:
    """Words on how two notes of a part differ, and whether its images then do for certain."""

    def differs(name: str) -> bool:
        return old.get(name) is not None and new.get(name) is not None and old[name] != new[name]

    if differs("images"):
        return f"{old['images']} before, {new['images']} now", True
    if differs("contents") or differs("sampled"):
        return "others of the same number", True
    if differs("sizes"):
        return "files of the same names have other sizes", True
    if differs("newest") and isinstance(old["newest"], int):
        times = images.looked_at(LOOKED_AT)[:, 1]
        newer = int((times > old["newest"]).sum())
        if 0 < newer <= len(times) / 2:  # else the folder was copied
            return f"{newer} of {len(times)} files were written since, in sizes as before", False
    return None

"""The images that a run is of: what its checkpoints note of them, and what is said where it goes on with others.

Noted are the number, a hash of names and labels, a hash of the files' sizes, and when the newest was written; of
tensors in memory a hash of some images. Sizes come before times, for a copied folder has other times: those tell
something only where few files are newer.
"""

from __future__ import annotations

from typing import Any

from tinymim.data.repeated import content_hash

LOOKED_AT = 10_000
"""Files whose size and time are looked at, evenly spread: 30 ms; those of a million take seconds, or on a network disk
minutes."""

PARTS = {
    "train": ("the images to train on", "the steps are not those of one run"),
    "held_out": ("the held-out images", "figures before and after are of different images"),
}
"""Parts of a data module: for people, and what follows from others."""


CERTAIN = "have changed"
"""Words of a change that is one for certain."""


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


def changes(parts: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Changes between two :func:`notes`, a line each.

    Args:
        parts: the data sets as they are now.
        before: as a checkpoint has them, which may be an older one that lacks some.
        now: the notes on ``parts``.
    """
    lines = []
    for part, (what, then) in PARTS.items():
        old, new = before.get(part, before if part == "train" else None), now.get(part)  # older ones have that alone
        if isinstance(old, dict) and new and (how := _difference(parts[part], old, new)):
            uncertain = how.endswith("sizes as before")
            lines.append(
                f"{what} {'may have changed' if uncertain else CERTAIN} ({how}): {'if so, ' * uncertain}{then}"
            )
    return lines


def _difference(images: Any, old: dict[str, Any], new: dict[str, Any]) -> str:
    def differs(name: str) -> bool:
        return old.get(name) is not None and new.get(name) is not None and old[name] != new[name]

    if differs("images"):
        return f"{old['images']} before, {new['images']} now"
    if differs("contents") or differs("sampled"):
        return "others of the same number"
    if differs("sizes"):
        return "files of the same names have other sizes"
    if differs("newest") and isinstance(old["newest"], int):
        times = images.looked_at(LOOKED_AT)[:, 1]
        newer = int((times > old["newest"]).sum())
        if 0 < newer <= len(times) / 2:  # else the folder was copied
            return f"{newer} of {len(times)} files were written since, in sizes as before"
    return ""

"""Files of a folder that are not read as images, although they are there. Needs no PyTorch."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field

from tinymim.errors import counted, first_few, plural

_OTHERS = """
.bmp .gif .tif .tiff .jfif .jpe .jp2 .j2k .jpf .jpx .j2c .jxl .jxr .avif .avifs .heic .heif .apng .qoi .ico .svg
.ppm .pgm .pnm .pbm .pam .pfm .pcx .tga .dds .psd .xcf .exr .hdr .dcm .nii .mha .mhd .nrrd .fits .fit
.svs .ndpi .mrxs .scn .bif .vsi .czi .lif .nd2 .cr2 .cr3 .nef .nrw .arw .srw .dng .raw .raf .rw2 .orf .pef
"""
OTHER_IMAGES = frozenset(_OTHERS.split())
"""Endings of images that are not read: what has them was surely meant."""

LOOKED_AT = 16  # endings of which a file is opened
SPARED = (".bak", ".tmp", ".part", ".partial", ".crdownload", ".download", ".aria2", ".old", ".orig", "~")
"""Endings of what is no image of its own, whatever it begins with."""

PICTURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|RIFF.{4}WEBP|GIF8[79]a|II\*\0|MM\0\*", re.DOTALL)
"""Beginning of a file that is an image, whatever its name."""


@dataclass
class PassedOver:
    """What a listing does not take, although it is there.

    Args:
        endings: files of each other ending.
        special: pipes, devices and sockets under the names of images.
        folders: folders directly below, of which :func:`listed` leaves those without an image.
        first: a file of each of the endings that are not in :data:`OTHER_IMAGES`, of :data:`LOOKED_AT` at most.
    """

    endings: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    special: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)

    def add(self, path: str) -> None:
        """Count a file by its ending."""
        ending = os.path.splitext(path)[1].lower()  # noqa: PTH122
        self.endings[ending] += 1
        if ending not in OTHER_IMAGES and len(self.first) < LOOKED_AT:
            self.first.setdefault(ending, path)

    def notes(self, where: str) -> list[str]:
        """Files that are not read, for people; see :meth:`faults`."""
        meant = OTHER_IMAGES.union(self._misnamed(where))
        if not (others := Counter({ending: n for ending, n in self.endings.items() if ending not in meant})):
            return self.faults(where)
        return [*self.faults(where), _not_read(others, "other file", where)]

    def faults(self, where: str) -> list[str]:
        """Those of them that were surely meant to be read: images of other kinds, pipes under the names of images."""
        faults = []
        if images := Counter({ending: n for ending, n in self.endings.items() if ending in OTHER_IMAGES}):
            faults.append(_not_read(images, "image", where, " of other kinds"))
        for ending, example in self._misnamed(where).items():
            kind = f"in {ending}" if ending else "without ending"
            faults.append(
                f"{counted(count := self.endings[ending], 'file')} {kind} in {where} {plural(count, 'is', 'are')} not "
                f"read, and {example} begins as an image does: give {plural(count, 'it', 'them')} its ending"
            )
        if self.special:
            are = plural(len(self.special), "pipe or device in {} is no image", "pipes or devices in {} are no images")
            faults.append(f"{len(self.special)} {are.format(where)}, such as {self.special[0]}")
        return faults

    def _misnamed(self, where: str) -> dict[str, str]:
        """A file of each other ending whose first bytes are an image's."""
        return {
            ending: path
            for ending, path in sorted(self.first.items())
            if not ending.endswith(SPARED) and _begins_as_an_image(f"{where}/{path}")
        }


def _not_read(endings: Counter[str], what: str, where: str, kinds: str = "") -> str:
    count = endings.total()
    are = plural(count, "is", "are")
    return f"{counted(count, what)}{kinds} in {where} {are} not read ({by_ending(endings)})"


def _begins_as_an_image(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return False
        with open(path, "rb") as stream:  # noqa: PTH123
            return PICTURE.match(stream.read(16)) is not None
    except OSError:
        return False


def by_ending(endings: Counter[str]) -> str:
    """The commonest endings and how many files have each, in words."""
    return first_few([f"{count} {ending or 'without ending'}" for ending, count in endings.most_common()], 4)

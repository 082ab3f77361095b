"""Whether a JPEG or PNG is whole, without making all of its pixels: several times as fast as decoding it."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

Header = tuple[str, str, tuple[int, int]]
"""Format and mode, in Pillow's names, and width and height."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_MODES = {(0, 8): "L", (2, 8): "RGB", (4, 8): "LA", (6, 8): "RGBA"}
_CHANNELS = {"L": 1, "RGB": 3, "LA": 2, "RGBA": 4}


def whole(data: bytes, max_pixels: int) -> Header | None:
    """The header of a common JPEG or PNG whose pixels are all there; ``None`` of others, broken ones among them, which
    Pillow is to look at.

    Args:
        data: what is in the file.
        max_pixels: limit on width times height.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data, max_pixels)
        return _png(data, max_pixels) if data.startswith(_PNG) else None
    except (ValueError, IndexError, struct.error, zlib.error):
        return None


def _jpeg(data: bytes, max_pixels: int) -> Header | None:
    """Decode one value of each 8 x 8 block, which reads all of the compressed data."""
    at, size, channels = 2, (0, 0), 0
    while data[at] == 0xFF and (marker := data[at + 1]) != 0xDA:  # up to the start of the scan
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            size = (width, height)
            if bits != 8 or channels not in (1, 3) or width * height > max_pixels:
                return None
        elif marker == 0xE2 and data[at + 4 : at + 7] == b"MPF":  # several pictures
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if not channels or data[at] != 0xFF:
        return None
    small = (-(-size[0] // 8), -(-size[1] // 8))
    Image.frombytes("L", small, data, "jpeg", "L", "", 8, 0)
    return "JPEG", "L" if channels == 1 else "RGB", size


def _png(data: bytes, max_pixels: int) -> Header | None:
    """Check each chunk's sum, and that the compressed data fill the rows."""
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    mode = _PNG_MODES.get((colour, bits))
    if mode is None or interlaced or width * height > max_pixels:
        return None
    at, compressed, kind = len(_PNG), [], b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if kind == b"acTL" or zlib.crc32(data[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return None  # an animation, or damaged
        if kind == b"IDAT":
            compressed.append(data[at + 8 : end])
        at = end + 4
    expected = height * (1 + width * _CHANNELS[mode])
    inflater = zlib.decompressobj()
    rows = inflater.decompress(b"".join(compressed), expected)
    return ("PNG", mode, (width, height)) if len(rows) == expected else None

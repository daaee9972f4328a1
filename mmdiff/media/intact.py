"""Is a file all there? What MP4, Matroska and RIFF files state about their own length, against the length they have."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from mmdiff.media.member import Member

MP4_FIRST = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}
MP4_HEAVY = {b"moov", b"mdat", b"moof"}
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_intact(path: Path | Member) -> None:
    """Follow a file's outermost parts to its end.

    Errors: `ValueError` where a part reaches beyond the end of the file, or an MP4 has no index.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[4:8] in MP4_FIRST:
            _check_boxes(path, file, size)
        elif head[:4] == EBML:
            _compare(path, _matroska_end(file), size)
        elif head[:4] == b"RIFF" and len(head) == 12:
            stated = struct.unpack("<I", head[4:8])[0]
            _compare(path, 8 + stated if stated < 0xFFFFFFFF else None, size)


def _compare(path: Path, stated: int | None, size: int) -> None:
    if stated is not None and stated > size:
        raise ValueError(f"{path}: truncated: the file states {stated} bytes and has {size}; copy or download it again")


def _check_boxes(path: Path, file: BinaryIO, size: int) -> None:
    position, names = 0, set()
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            large = file.read(8)
            length = int.from_bytes(large, "big") if len(large) == 8 else 0
        elif length == 0:
            length = size - position
        if length < 8:
            break
        names.add(name)
        if name in MP4_HEAVY:
            _compare(path, position + length, size)
        position += length
    if b"moov" not in names:
        raise ValueError(
            f"{path}: truncated: an MP4 without its index (no moov box), as a recording or a download leaves that was "
            "cut short; make or fetch it again"
        )


def _matroska_end(file: BinaryIO) -> int | None:
    """Return where the segment ends by its own account; None where it does not say (a live recording)."""
    file.seek(4)
    header = _read_length(file)
    if header is None:
        return None
    file.seek(header, 1)
    if file.read(4) != SEGMENT:
        return None
    length = _read_length(file)
    return None if length is None else file.tell() + length


def _read_length(file: BinaryIO) -> int | None:
    """Read a Matroska length: the first byte's leading zeros count the bytes that follow; all ones mean unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(more), "big") & ((1 << (7 * (more + 1))) - 1)
    return None if value == (1 << (7 * (more + 1))) - 1 else value

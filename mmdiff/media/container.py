"""Opening media files: one place where what libav says of a bad file becomes a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a file for reading.

    Errors: `ValueError` that names the file and the fault, for whatever cannot be opened or decoded inside the block.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name a media file in it")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: truncated, damaged or not a media file ({error.strerror})") from error


def presentation_zero(container: InputContainer) -> Fraction:
    """Return the time stamp, in seconds, at which a player starts: a transport stream's clock need not begin at 0."""
    start = container.start_time
    return max(Fraction(start, av.time_base), Fraction(0)) if start is not None else Fraction(0)


def seek_before(container: InputContainer, stream: av.stream.Stream, seconds: Fraction) -> None:
    """Go to the nearest key frame at or before a time stamp in seconds."""
    if seconds > 0:
        container.seek(int(seconds / stream.time_base), stream=stream, backward=True, any_frame=False)

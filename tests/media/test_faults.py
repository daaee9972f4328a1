"""A bad file is refused in one sentence that names it and its fault."""

from fractions import Fraction

import numpy as np
import pytest

from mmdiff.media import ClipSpec, probe, read_audio, read_clip, read_video, write_mp4
from tests.media.foreign import clip_of, flashes, write_foreign


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_mp4(tmp_path_factory.mktemp("good") / "good.mp4", clip_of(Fraction(25), 5, 16_000)[0])


def refuses(path, reason):
    for read in (read_clip, probe, lambda p: read_clip(p, ClipSpec())):
        with pytest.raises(ValueError, match=reason) as caught:
            read(path)
        assert path.name in str(caught.value)


@pytest.mark.parametrize("content", [b"not a film\n" * 50, b"\x00" * 5000, bytes(range(256)) * 40, b"{}"])
def test_what_is_no_media_file(tmp_path, content):
    path = tmp_path / "odd.mp4"
    path.write_bytes(content)
    refuses(path, "not a media file|neither picture nor sound|damaged")


def test_missing_empty_and_folder(tmp_path):
    refuses(tmp_path / "none.mp4", "no such file")
    refuses(tmp_path, "folder")
    (tmp_path / "empty.mp4").touch()
    refuses(tmp_path / "empty.mp4", "empty")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_truncated_with_the_index_first(tmp_path, good, part):
    path = tmp_path / "cut.mp4"
    path.write_bytes(good.read_bytes()[: int(good.stat().st_size * part)])
    refuses(path, "truncated|damaged")


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.avi"])
def test_truncated_with_the_index_last(tmp_path, name):
    frames, wave = flashes([1], 100, Fraction(25)), np.zeros((1, 48_000 * 4), np.float32)
    codecs = {"video": "mpeg4", "audio": "libmp3lame", "tick": Fraction(1, 25)} if name.endswith("avi") else {}
    path = write_foreign(tmp_path / name, frames, [Fraction(n, 25) for n in range(100)], wave, **codecs)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refuses(path, "truncated")


def test_a_missing_stream(tmp_path):
    frames, wave = flashes([1], 100, Fraction(25)), np.full((1, 48_000 * 4), 0.1, np.float32)
    mute = write_foreign(tmp_path / "mute.mp4", frames, [Fraction(n, 25) for n in range(100)])
    blind = write_foreign(tmp_path / "blind.m4a", wave=wave)
    with pytest.raises(ValueError, match=r"mute\.mp4: no sound"):
        read_clip(mute)
    with pytest.raises(ValueError, match=r"blind\.m4a: no picture"):
        read_clip(blind)
    assert len(read_video(mute).frames) == 100 and not probe(mute).has_audio
    assert read_audio(blind).waveform.shape[1] >= 48_000 * 4 - 1024 and not probe(blind).has_video


def test_windows_beyond_the_end(good):
    for start in (Fraction(4), 4.9, 5, 60):
        with pytest.raises(ValueError, match=r"good\.mp4: the picture ends at 5\.000 s"):
            read_clip(good, ClipSpec(), start=start)
        with pytest.raises(ValueError, match=r"good\.mp4: the sound ends"):
            read_audio(good, start=start, num_samples=25_600)
    assert read_clip(good, ClipSpec(), start=Fraction(34, 10)).num_samples == 25_600
    for start in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="start is"):
            read_clip(good, ClipSpec(), start=start)

"""musicnn's weights are read without TensorFlow, hear what music is, and refuse what is too short or damaged."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff.eval.features.musicnn import (
    INSTALL,
    MIN_REPEATED_SECONDS,
    TAGS,
    Musicnn,
    MusicnnConfig,
    MusicnnNetwork,
    log_mel_frames,
    read_variables,
)
from mmdiff.eval.features.tensorbundle import MAGIC, read_bundle
from mmdiff.pretrained import Weights, in_package
from tests.eval.features.sounds import noise_clip, sound_clip

RATE = 16_000


def has_package() -> bool:
    """Say whether the package with the weights is installed."""
    try:
        in_package("musicnn", "MTT_musicnn/.index", INSTALL)
    except ValueError:
        return False
    return True


needs_package = pytest.mark.skipif(not has_package(), reason=f"package musicnn is absent; run `{INSTALL}`")


def varint(value: int) -> bytes:
    """Write an integer as LevelDB and protocol buffers do."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Write a block of a table, each key after the letters that it shares with the one before it."""
    written, before = b"", b""
    for key, value in entries:
        shared = next(
            (i for i, (x, y) in enumerate(zip(before, key, strict=False)) if x != y), min(len(before), len(key))
        )
        written += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return written + struct.pack("<II", 0, 1)


def write_bundle(folder: Path, tensors: dict[str, np.ndarray]) -> tuple[Path, Path]:
    """Write a checkpoint as TensorFlow lays it out: two blocks of names, and the tensors one after another."""
    entries, data = [(b"", b"\x08\x01")], b""
    for name, x in sorted(tensors.items()):
        dims = b"".join(b"\x12" + varint(len(varint(n)) + 1) + b"\x08" + varint(n) for n in x.shape)
        kind = {"float32": 1, "int64": 9}[str(x.dtype)]
        entry = b"\x08" + varint(kind) + b"\x12" + varint(len(dims)) + dims
        entry += b"\x20" + varint(len(data)) + b"\x28" + varint(x.nbytes) + b"\x35" + bytes(4)
        entries.append((name.encode(), entry))
        data += x.tobytes()
    table, handles = b"", []
    for part in (entries[:2], entries[2:], handles):  # the last block says where the others are
        made = block(part)
        handle = varint(len(table)) + varint(len(made))
        handles.append((part[-1][0], handle))
        table += made + bytes(5)
    footer = (bytes(2) + handle).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    index_path, data_path = folder / ".index", folder / ".data-00000-of-00001"
    index_path.write_bytes(table + footer)
    data_path.write_bytes(data)
    return index_path, data_path


def test_checkpoint_is_read_back(tmp_path):
    """Names that share their beginnings, shapes over 127 and scalars come back; integers are left out."""
    rng = np.random.default_rng(0)
    shapes = {"dense/bias": (200,), "dense/kernel": (3, 200), "dense_1/kernel": (200, 2), "power": ()}
    tensors = {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}
    paths = write_bundle(tmp_path, tensors | {"step": np.array(7, np.int64)})
    found = read_bundle(*paths)
    assert set(found) == set(tensors)
    for name, x in tensors.items():
        np.testing.assert_array_equal(found[name], x)


def test_damaged_checkpoint_is_refused(tmp_path):
    """Data cut short, an index cut short, and a file that is none."""
    index, data = write_bundle(tmp_path, {"a": np.zeros(300, np.float32), "b": np.ones(3, np.float32)})
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"b \(3,\) does not fit"):
        read_bundle(index, data)
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged index"):
        read_bundle(index, data)
    with pytest.raises(ValueError, match="conv2d/kernel is missing among 1 variables"):
        read_variables({"a": np.zeros(3, np.float32)})


def test_log_mel_is_librosas():
    """The front end is librosa's mel spectrogram with mirrored ends, log10(10000 x + 1)."""
    librosa = pytest.importorskip("librosa")
    waveform = noise_clip(1.0).waveform[0]
    mel = librosa.feature.melspectrogram(y=waveform, sr=RATE, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect")
    np.testing.assert_allclose(log_mel_frames(waveform).numpy(), np.log10(10_000 * mel.T + 1), atol=1e-4)


def make_extractor(name: str = "musicnn-mtt") -> Musicnn:
    """Build a tiny random network, as only a test may."""
    torch.manual_seed(0)
    network = MusicnnNetwork(MusicnnConfig(timbral=4, temporal=2, middle=3, units=5)).eval()
    return Musicnn(network, Weights(Path("tiny"), "random", "0" * 64), name=name)


def test_patches_of_clips_stay_apart():
    """Clips of 3, 6 and 7 s give one, two and two patches, the same in one call as alone."""
    extractor = make_extractor()
    clips = [noise_clip(3.0), noise_clip(6.0, 44_100, seed=1, channels=2), noise_clip(7.0, seed=2)]
    together = extractor.extract(clips)
    assert [out["tags"].shape for out in together] == [(1, 50), (2, 50), (2, 50)]
    for clip, out in zip(clips, together, strict=True):
        for key, values in extractor.extract([clip])[0].items():
            np.testing.assert_allclose(values, out[key], atol=1e-5)


def test_short_clip_needs_the_variant_that_repeats():
    """1.6 s is refused with a way out; the variant that repeats takes it, and changes nothing for a long clip."""
    strict, repeating = make_extractor(), make_extractor("musicnn-mtt:repeat-pad")
    with pytest.raises(ValueError, match=r"1.6000 s of sound, but it takes 2.976 s.*use musicnn-mtt:repeat-pad"):
        strict.extract([noise_clip(1.6)])
    assert repeating.extract([noise_clip(1.6)])[0]["embedding"].shape == (1, 5)
    long = [noise_clip(4.0)]
    np.testing.assert_array_equal(strict.extract(long)[0]["tags"], repeating.extract(long)[0]["tags"])
    with pytest.raises(ValueError, match=r"0.9000 s of sound, but it takes 1 s"):
        repeating.extract([noise_clip(0.9 * MIN_REPEATED_SECONDS)])


def beat(seconds: float = 6.0) -> np.ndarray:
    """A bass drum on every beat of 130 a minute, and a hiss between them."""
    rng = np.random.default_rng(0)
    clock = np.arange(round(seconds * RATE)) / RATE
    age = clock % (60 / 130)
    hiss = np.exp(-((clock + 30 / 130) % (60 / 130)) / 0.03) * rng.standard_normal(len(clock))
    return 0.7 * np.exp(-age / 0.08) * np.sin(2 * np.pi * 60 * age) + 0.1 * hiss


def plucked(seconds: float = 6.0) -> np.ndarray:
    """Plucked strings after Karplus and Strong: chords, a note every third of a second."""
    rng = np.random.default_rng(1)
    made = np.zeros(round(seconds * RATE) + 2 * RATE)
    for i, step in enumerate([0, 4, 7, 12, 7, 4] * 3):
        period = round(RATE / (196 * 2 ** (step / 12)))
        ring = rng.uniform(-1, 1, period)
        note = np.zeros(2 * RATE)
        for j in range(0, len(note) - period, period):
            note[j : j + period] = ring
            ring = 0.498 * (ring + np.roll(ring, 1))
        start = i * RATE // 3
        made[start : start + len(note)] += 0.2 * note
    return made[: round(seconds * RATE)]


@needs_package
@pytest.mark.parametrize(
    ("name", "heard_in_beat", "heard_in_strings"),
    [("musicnn-mtt", {"techno", "beat"}, {"guitar", "harp"}), ("musicnn-msd", {"electronic", "electro"}, {"acoustic"})],
)
def test_real_weights_know_a_beat_from_strings(name, heard_in_beat, heard_in_strings):
    """Every variable fits; a drum machine has the tags of its kind more than plucked strings have them, and back."""
    extractor = Musicnn.load(name=name)
    outputs = extractor.extract([sound_clip(beat(), RATE), sound_clip(plucked(), RATE)])
    assert outputs[0]["embedding"].shape == (2, 200) and outputs[0]["tags"].shape == (2, 50)
    assert len(set(TAGS[name])) == 50 and len(extractor.weights.sha256) == 64
    of_beat, of_strings = (dict(zip(extractor.tag_names, out["tags"].mean(0), strict=True)) for out in outputs)
    assert heard_in_beat <= set(sorted(of_beat, key=of_beat.get)[-5:])
    assert heard_in_strings <= set(sorted(of_strings, key=of_strings.get)[-8:])
    assert all(of_beat[tag] > of_strings[tag] for tag in heard_in_beat)
    assert all(of_strings[tag] > of_beat[tag] for tag in heard_in_strings)


@needs_package
def test_unknown_variant_or_file_is_refused():
    """A tagger that does not exist, and a file given where the package holds the weights."""
    with pytest.raises(ValueError, match="no variant of musicnn"):
        Musicnn.load(name="musicnn-vgg")
    with pytest.raises(ValueError, match="name no file"):
        Musicnn.load("weights.pt")

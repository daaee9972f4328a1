"""Folders of music: cut to the sample, captioned, coded once, and refused where nothing is to be learned from them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff.personalize.musicgen import data
from mmdiff.personalize.musicgen.codes import Cache, begin, delay, encode_sound
from mmdiff.personalize.musicgen.data import ChunkSettings, Folder, caption_of, cut, list_audio
from mmdiff.personalize.musicgen.model import load_musicgen
from mmdiff.personalize.musicgen.stream import ChunkStream
from tests.personalize.musicgen.tiny_musicgen import HOP, RATE, chord, save_wav, write_musicgen

SETTINGS = ChunkSettings(2.0, 0.5, "slow guitar", auto_labeling=False)


@pytest.fixture(scope="module")
def mono(tmp_path_factory):
    return load_musicgen(str(write_musicgen(tmp_path_factory.mktemp("mono"))))


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    return load_musicgen(str(write_musicgen(tmp_path_factory.mktemp("stereo"), channels=2)))


def folder(music, cache: Path, settings: ChunkSettings = SETTINGS) -> Folder:
    return Folder(music, settings, Cache(cache))


def test_sounds_are_cut_to_the_sample_and_short_tails_are_left_out():
    assert cut(32000 * 65, 32000, 30, 5) == [(0, 960000), (960000, 960000), (1920000, 160000)]
    assert cut(32000 * 65 - 1, 32000, 30, 5) == [(0, 960000), (960000, 960000)]
    assert cut(32000 * 7, 32000, 30, 5) == [(0, 224000)] and cut(32000 * 4, 32000, 30, 5) == []


@pytest.mark.parametrize(("fixture", "channels"), [("mono", 1), ("stereo", 2)])
def test_the_delay_is_that_of_generation_and_no_frame_is_lost(fixture, channels, request):
    music = request.getfixturevalue(fixture)
    codes = torch.randint(0, 32, (2, music.num_codebooks, 9))
    labels = delay(codes, music.pad, channels)
    for book in range(music.num_codebooks):
        step = book // channels
        assert torch.equal(labels[:, book, step : step + 9], codes[:, book])
    assert (labels == music.pad).sum() == 2 * music.num_codebooks * 3 and labels.shape[2] == 12
    start = torch.full((2 * music.num_codebooks, 1), music.pad)
    prompt = torch.cat([start, codes.flatten(0, 1)], 1)
    _, pattern = music.network.decoder.build_delay_pattern_mask(prompt, music.pad, max_length=13)
    pattern = pattern.unflatten(0, (2, -1))
    assert torch.equal(labels, pattern[..., 1:]) and torch.equal(begin(labels, music.pad), pattern[..., :-1])


def test_a_file_becomes_chunks_whose_codes_are_those_of_their_samples(mono, tmp_path):
    path = save_wav(tmp_path / "song.wav", chord(5.0))
    chunks = folder(mono, tmp_path / "cache").chunks([path])
    assert [(chunk.start, chunk.num_samples) for chunk in chunks] == [(0, 8000), (8000, 8000), (16000, 4000)]
    assert [chunk.codes.shape[1] for chunk in chunks] == [100, 100, 50] and chunks[0].codes.unique().numel() > 3
    sound = data.read_audio(path).waveform
    assert torch.equal(chunks[1].codes, encode_sound(mono, sound[:, 8000:16000]))
    assert all(chunk.caption == "slow guitar" for chunk in chunks)


def test_stereo_is_mixed_for_one_channel_and_coded_apart_for_two(mono, stereo, tmp_path):
    sound = chord(1.0, channels=2)
    path = save_wav(tmp_path / "song.wav", sound)
    mixed = save_wav(tmp_path / "mixed.wav", sound.mean(0, keepdims=True))
    one, same = folder(mono, tmp_path / "cache").chunks([path, mixed])
    assert (one.codes == same.codes).float().mean() > 0.95  # 16 bits are rounded before or after
    both = folder(stereo, tmp_path / "cache").chunks([path, mixed])
    assert both[0].codes.shape == (8, 50)
    assert not torch.equal(both[0].codes[::2], both[0].codes[1::2])
    assert torch.equal(both[1].codes[::2], both[1].codes[1::2]), "one channel is heard on both sides"
    left = encode_sound(stereo, np.repeat(data.read_audio(path).waveform[:1], 2, 0))
    assert torch.equal(both[0].codes[::2], left[::2])


def test_codes_are_computed_once_for_a_content_whatever_the_file_is_called(mono, tmp_path, monkeypatch):
    path = save_wav(tmp_path / "song.wav", chord(3.0))
    before = folder(mono, tmp_path / "cache").chunks([path])
    again = path.rename(tmp_path / "other name.wav")
    monkeypatch.setattr(data, "encode_sound", lambda *arguments: pytest.fail("coded again"))
    after = folder(mono, tmp_path / "cache").chunks([again])
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(before, after))
    with pytest.raises(pytest.fail.Exception, match="coded again"):
        folder(mono, tmp_path / "cache", ChunkSettings(1.0, 0.5, "slow", False)).chunks([again])
    save_wav(again, chord(3.0, pitch=300))
    with pytest.raises(pytest.fail.Exception, match="coded again"):
        folder(mono, tmp_path / "cache").chunks([again])


def test_a_damaged_cache_is_made_anew(mono, tmp_path):
    path = save_wav(tmp_path / "song.wav", chord(1.0))
    before = folder(mono, tmp_path / "cache").chunks([path])
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(folder(mono, tmp_path / "cache").chunks([path])[0].codes, before[0].codes)


def test_the_nearest_caption_is_taken(tmp_path):
    song, piece = tmp_path / "song.wav", tmp_path / "song_chunk1.wav"
    assert caption_of(song, 0) is None
    (tmp_path / "song.txt").write_text("slow\n guitar ")
    (tmp_path / "song_chunk2.txt").write_text("drums")
    assert [caption_of(song, index) for index in range(3)] == ["slow guitar", "slow guitar", "drums"]
    assert caption_of(piece, 0) == "slow guitar", "of what it was cut from"
    (tmp_path / "song_chunk1.txt").write_text("loud")
    assert caption_of(piece, 0) == "loud"
    (tmp_path / "song.txt").write_text(" ")
    with pytest.raises(ValueError, match=r"song.txt: an empty caption"):
        caption_of(song, 0)


def test_music_without_captions_is_described_by_tags_tempo_and_key(mono, tmp_path, monkeypatch):
    path = save_wav(tmp_path / "song.wav", chord(9.0, rate=16000), 16000)
    settings = ChunkSettings(6.0, 1.0, None, auto_labeling=True)
    chunks = folder(mono, tmp_path / "cache", settings).chunks([path])
    assert len(chunks) == 2
    assert all("120 bpm" in chunk.caption and "key of" in chunk.caption for chunk in chunks)
    monkeypatch.setattr(data.Describer, "__call__", lambda *arguments: pytest.fail("described again"))
    assert [c.caption for c in folder(mono, tmp_path / "cache", settings).chunks([path])] == [
        c.caption for c in chunks
    ]


def test_what_cannot_be_learned_from_is_refused_by_name(mono, tmp_path):
    files = {name: tmp_path / f"{name}.wav" for name in ("silent", "short", "noise")}
    save_wav(files["silent"], np.zeros((2, 2 * RATE)))
    save_wav(files["short"], chord(0.49))
    files["noise"].write_bytes(b"this is no sound" * 50)
    for name, message in {"silent": "silent.wav: silent", "short": "none of 1 files", "noise": "noise.wav"}.items():
        with pytest.raises(ValueError, match=message):
            folder(mono, tmp_path / "cache").chunks([files[name]])
    good = save_wav(tmp_path / "good.wav", chord(1.0))
    assert {chunk.path for chunk in folder(mono, tmp_path / "cache").chunks([files["short"], good])} == {good}
    partly = save_wav(tmp_path / "partly.wav", np.concatenate([np.zeros((1, 2 * RATE)), chord(2.0)], 1))
    assert [chunk.start for chunk in folder(mono, tmp_path / "cache").chunks([partly])] == [2 * RATE]
    unlabelled = ChunkSettings(2.0, 0.5, None, auto_labeling=False)
    with pytest.raises(ValueError, match=r"good.wav: no caption \(1 of 1"):
        data.check_captions([good], unlabelled)
    with pytest.raises(ValueError, match="is no folder"):
        list_audio(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no audio file"):
        list_audio(str(tmp_path / "empty"))


def test_a_codec_that_was_never_trained_is_refused(mono, tmp_path):
    music = load_musicgen(str(mono.folder))
    for layer in music.network.audio_encoder.quantizer.layers:
        layer.codebook.embed.zero_()
    with pytest.raises(ValueError, match="one and the same code"):
        folder(music, tmp_path / "cache").chunks([save_wav(tmp_path / "song.wav", chord(1.0))])


def test_every_chunk_comes_once_before_any_comes_again_and_a_stream_goes_on_where_it_stood(mono, tmp_path):
    sounds = [save_wav(tmp_path / f"{i}.wav", chord(0.6 + 0.1 * i, pitch=200 + 20 * i)) for i in range(5)]
    chunks = folder(mono, tmp_path / "cache").chunks(sounds)
    lengths = [chunk.codes.shape[1] for chunk in chunks]

    def stream(**how) -> ChunkStream:
        return ChunkStream(chunks, batch_size=2, pad=mono.pad, seed=4, **how)

    def seen(batches) -> list[int]:
        return [lengths.index(int((row[0] != mono.pad).sum())) for batch in batches for row in batch["codes"]]

    one = stream()
    batches = [batch for _, batch in zip(range(10), one)]
    order = seen(batches)
    assert all(sorted(order[turn : turn + 5]) == list(range(5)) for turn in range(0, 20, 5))
    assert order[:5] != order[5:10] or order[5:10] != order[10:15]
    assert batches[0]["codes"].shape[2] == max(lengths[i] for i in order[:2])
    other = stream()
    for _ in zip(range(7), one := stream()):
        pass
    with pytest.raises(ValueError, match="not those that this run began with"):
        ChunkStream(chunks[:4], batch_size=2, pad=mono.pad, seed=4).load_state_dict(one.state_dict())
    other.load_state_dict({**one.state_dict(), "position": 7})
    assert torch.equal(next(iter(other))["codes"], batches[7]["codes"])
    ranks = [stream(rank=rank, world_size=2) for rank in range(2)]
    assert seen([next(iter(ranks[0])), next(iter(ranks[1]))]) == order[:4]
    assert HOP * lengths[0] >= chunks[0].num_samples

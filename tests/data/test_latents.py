"""The stream of latents: windows aligned in both modalities, of the recipe's codecs alone, exactly resumable."""

import json
from fractions import Fraction
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

from data_tools.encode import encode_set, load_codecs
from mmdiff.checkpoint import save_parts
from mmdiff.data.clips import DataConfig, WindowDataset
from mmdiff.data.latents import LatentDataset, build_latent_loader, codecs_sha256, latent_table, num_frames
from mmdiff.media import ClipSpec, read_clip
from mmdiff.models import MelCodec, PatchCodec

SPEC = ClipSpec(num_frames=4, fps=Fraction(10), height=16, width=16, sample_rate=16_000)


@pytest.fixture(scope="module")
def encoded(clips, tmp_path_factory):
    """The folder of codecs, and that of the latents of three training clips and one for validation."""
    folder = tmp_path_factory.mktemp("encoded")
    torch.manual_seed(0)
    video = PatchCodec(patch_size=4, latent_channels=6).fit([torch.rand(1, 3, 4, 16, 16) * 2 - 1])
    clip = {"num_frames": 4, "fps": "10", "height": 16, "width": 16, "sample_rate": 16_000, "channels": 1}
    parts = {"video_codec": video, "audio_codec": MelCodec(n_mels=16)}
    save_parts(folder / "codecs", parts, {"_class_name": "JointPipeline", "clip": clip})
    told = encode_set(clips, folder / "latents", load_codecs(folder / "codecs"))
    assert told["encoded"] == 4 and not told["failed"]
    return folder


def settings_of(encoded, spec=SPEC, **changes):
    codecs = load_codecs(encoded / "codecs")
    config = DataConfig(latents=str(encoded / "latents"), **changes)
    return config, spec, {"video": codecs.video, "audio": codecs.audio}, codecs_sha256(encoded / "codecs", spec)


def make_dataset(encoded, split="train", **changes):
    return LatentDataset(*settings_of(encoded), split=split, batch_size=2, seed=3, **changes)


def make_loader(encoded, num_workers=0):
    return build_latent_loader(*settings_of(encoded, num_workers=num_workers), split="train", batch_size=2, seed=3)


def assert_same(one, other):
    assert one["key"] == other["key"] and one["start"] == other["start"]
    assert torch.equal(one["video"], other["video"]) and torch.equal(one["audio"], other["audio"])


def test_a_window_holds_what_its_own_picture_and_sound_are_encoded_to(clips, encoded):
    data = make_dataset(encoded)
    codecs, starts = data.codecs, set()
    for number in range(len(data.windows)):
        batch = data.batch(number)
        assert batch["video"].shape == (2, 6, 4, 4, 4) and batch["audio"].shape == (2, 16, 40)
        clip = read_clip(clips / "files" / f"{batch['key'][0]}.mp4", SPEC, start=Fraction(batch["start"][0]))
        pixels = rearrange(torch.from_numpy(clip.frames).float() / 127.5 - 1, "f h w c -> 1 c f h w")
        torch.testing.assert_close(batch["video"][:1], codecs["video"].encode(pixels))
        sound = codecs["audio"].encode(torch.from_numpy(clip.waveform)[None])
        error = (batch["audio"][:1] - sound)[..., 3:-3].abs().mean()  # at its edges a window alone hears silence
        assert error < 0.2 * (batch["audio"][:1] - sound.roll(1, -1))[..., 3:-3].abs().mean()
        starts |= set(batch["start"])
        assert batch["caption"] == ["" if key == "clip-2" else f"caption of {key}" for key in batch["key"]]
    assert len(starts) > 10, "windows start anywhere"


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("taken", [3, 14])  # in the middle of the first epoch, and of the second
def test_a_loaded_state_goes_on_bit_for_bit(encoded, num_workers, taken):
    loader = make_loader(encoded, num_workers)
    batches = iter(loader)
    for _ in range(taken):
        next(batches)
    state = loader.state_dict()
    expected = list(islice(batches, 3))
    resumed = make_loader(encoded, num_workers)
    resumed.load_state_dict(state)
    for one, other in zip(islice(resumed, 3), expected, strict=True):
        assert_same(one, other)


def test_every_epoch_takes_every_part_of_every_clip_once_over_all_ranks(encoded):
    whole = make_dataset(encoded)
    count = len(whole.windows)
    assert count == 21  # three clips of 3 s
    ranks = [make_dataset(encoded, rank=rank, world_size=3) for rank in range(3)]
    seen = [window for number in range(4) for rank in ranks for window in rank_windows(rank, number)][:count]
    assert seen == [whole.window(position) for position in range(count)]
    assert sorted(window.entry.key for window in seen) == sorted(window.entry.key for window in whole.windows)
    assert seen != [whole.window(count + position) for position in range(count)]
    fixed = make_dataset(encoded, "validation")
    assert [start for number in range(4) for start in fixed.batch(number)["start"]][:7] == pytest.approx(
        [0.4 * n for n in range(7)])  # fmt: skip


def rank_windows(data, number):
    base = (number * data.world_size + data.rank) * data.batch_size
    return [data.window(base + offset) for offset in range(data.batch_size)]


def entry_of(video_steps, audio_steps):
    return SimpleNamespace(key="a", latents="a", shapes={"video": (1, video_steps, 1, 1), "audio": (1, audio_steps)})


def codec_of(kind, factor, starts_with_one=False):
    codec = PatchCodec(patch_size=4, latent_channels=2) if kind == "video" else MelCodec(n_mels=4)
    codec.temporal_factor, codec.starts_with_one = factor, starts_with_one
    return codec


@pytest.mark.parametrize("video, audio, frames, expected", [
    ((1, False), (Fraction(25600, 35), False), 64, [0, 16, 32, 48]),  # 35 steps of sound last 16 frames
    ((1, False), (160, False), 20, list(range(5))),
    ((4, False), (Fraction(1600), False), 30, [0, 4, 8, 12]),
    ((4, True), (160, False), 33, [0]),  # a first step of one frame is nowhere but at the beginning
])  # fmt: skip
def test_windows_start_where_steps_of_both_begin(encoded, video, audio, frames, expected):
    data, spec = make_dataset(encoded), ClipSpec(16, 10, 16, 16)
    data.spec = spec
    data.codecs = {"video": codec_of("video", *video), "audio": codec_of("audio", *audio)}
    entry = entry_of(data.codecs["video"].num_steps(frames), data.codecs["audio"].num_steps(frames * 1600))
    assert num_frames(entry, spec, data.codecs) == frames
    windows = data._cut(entry)
    assert [start for window in windows for start in window.starts] == expected
    with pytest.raises(ValueError, match="do not last equally long"):
        num_frames(entry_of(9, 3), spec, data.codecs)


def test_latents_of_other_codecs_or_rates_are_refused(encoded, tmp_path, clips):
    config, spec, codecs, digest = settings_of(encoded)
    assert digest == load_codecs(encoded / "codecs").sha256
    assert "nothing is mirrored" in latent_table(config, spec, codecs, digest)
    with pytest.raises(ValueError, match=r"codecs\.folder"):
        latent_table(config, spec, codecs, "0" * 64)
    other = ClipSpec(4, 10, 32, 16)
    with pytest.raises(ValueError, match="at a size and rates"):
        latent_table(config, other, codecs, codecs_sha256(encoded / "codecs", other))
    with pytest.raises(ValueError, match="shorter than a window"):
        latent_table(*settings_of(encoded, ClipSpec(40, 10, 16, 16)))
    with pytest.raises(ValueError, match="no latents in split 'test'"):
        make_dataset(encoded, "test")
    with pytest.raises(ValueError, match="no latents here"):
        latent_table(DataConfig(latents=str(tmp_path)), spec, codecs, digest)
    with pytest.raises(ValueError, match="only the task joint trains on latents"):
        WindowDataset(DataConfig(str(clips), str(tmp_path)), SPEC, split="train", batch_size=1, seed=0)


def copied(encoded, folder):
    """Copy the codecs and the index, and the latents of every clip."""
    for path in [path for path in encoded.rglob("*") if path.is_file()]:
        target = folder / path.relative_to(encoded)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def test_damage_is_named(encoded, tmp_path):
    folder = copied(encoded, tmp_path)
    index = folder / "latents" / "index.jsonl"
    lines = index.read_text().splitlines()
    own = [folder / "latents" / line["latents"] for line in map(json.loads, lines)]
    for path in own:
        save_file({name: x[:, :-1].contiguous() for name, x in load_file(path).items()}, path)
    with pytest.raises(ValueError, match="not the latents that the index lists"):
        make_dataset(folder).batch(0)
    own[0].unlink()
    with pytest.raises(ValueError, match="listed, but not there"):
        latent_table(*settings_of(folder))
    for change in ({"latents": "../../secret"}, {"shapes": {"video": [1, 2]}}, {"split": "test"}):
        entry = json.loads(lines[0]) | change
        index.write_text("\n".join([*lines, json.dumps(entry)]))
        with pytest.raises(ValueError, match=r"index.jsonl:5: not a line|in two splits"):
            make_dataset(folder)

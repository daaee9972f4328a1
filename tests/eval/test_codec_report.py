"""`mmdiff codec report`: faults that were put in are found, and what is exact reads as exact."""

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff.checkpoint import save_parts
from mmdiff.cli import main
from mmdiff.eval import codec_report_measures as measures
from mmdiff.eval.codec_report import Request, guess_clip, load_codecs, measure_codecs
from mmdiff.eval.codec_report_findings import format_result
from mmdiff.eval.codec_report_rates import describe_grid, step_starts
from mmdiff.eval.codec_report_rows import BOTH, PICTURE, SOUND
from mmdiff.media import Clip, ClipSpec, write_mp4
from mmdiff.models import MelCodec, PixelCodec, WaveformCodec

RATE, FPS = 16_000, Fraction(10)
SPEC = ClipSpec(16, FPS, 32, 32, RATE, 1)


def make_clip(rng: np.random.Generator) -> Clip:
    """Flashes and rings at irregular times, above a bar that moves."""
    times = np.cumsum(rng.uniform(0.3, 0.6, 6))
    clock, now = np.arange(SPEC.num_samples) / RATE, np.arange(SPEC.num_frames) / float(FPS)
    wave = 1e-3 * rng.standard_normal(len(clock))
    frames = np.full((SPEC.num_frames, 32, 32, 3), 30.0)
    for number, frame in enumerate(frames):
        frame[26:30, number : number + 6] += 60
    for time in times[times < 1.5]:
        age = np.maximum(clock - time, 0)
        tones = sum(np.sin(2 * np.pi * pitch * age + 1) for pitch in (450, 1800, 5400))
        wave += 0.2 * (clock >= time) * np.exp(-age / 0.05) * tones
        light = np.where(now >= time, np.exp(-np.maximum(now - time, 0) / 0.15), 0)
        frames[:, 4:20, 8:24] += 180 * light[:, None, None, None]
    return Clip(frames.clip(0, 255).astype(np.uint8), wave[None].clip(-1, 1).astype(np.float32), FPS, RATE)


class LateCodec(WaveformCodec):
    """Sound that comes 40 ms late."""

    def decode(self, latent, length=None):
        return torch.nn.functional.pad(latent, (640, 0))[..., : latent.shape[-1]]


class SlowCodec(WaveformCodec):
    """Sound at 16 kHz taken for sound at 44.1 kHz, and so played 2.76 times as slowly when it comes back."""

    sample_rate = 44_100

    def decode(self, latent, length=None):
        stretched = torch.nn.functional.interpolate(latent, scale_factor=44_100 / RATE, mode="linear")
        return stretched[..., : latent.shape[-1]]


class HeldCodec(PixelCodec):
    """Pictures of which every second one is shown twice."""

    def decode(self, latent, length=None, size=None):
        return latent[:, :, torch.arange(latent.shape[2]) // 2 * 2]


class TintCodec(PixelCodec):
    """Pictures that are too bright, or by turns too bright and too dark, by eight levels."""

    def __init__(self, is_flickering: bool):
        super().__init__()
        self.is_flickering = is_flickering

    def decode(self, latent, length=None, size=None):
        sign = torch.where(torch.arange(latent.shape[2]) % 2 == 0, 1, -1 if self.is_flickering else 1)
        return latent + 8 / 127.5 * sign[:, None, None]


class ShortCodec(WaveformCodec):
    """Sound that loses its last samples."""

    def decode(self, latent, length=None):
        return latent[..., :-7]


class BrokenCodec(PixelCodec):
    """Pictures of which nothing is left."""

    def decode(self, latent, length=None, size=None):
        return latent / 0 * 0


class TalkativeCodec(WaveformCodec):
    """States a latent step for every 100 samples, and makes one for each."""

    temporal_factor = 100


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("media"), np.random.default_rng(3)
    for number in range(10):
        write_mp4(folder / f"{number}.mp4", make_clip(rng))
    return folder


def report(media, *codecs, **options):
    request = Request(Path("model"), media, **options)
    return measure_codecs(request, {codec.modality: codec for codec in codecs}, SPEC)[0]


def row(result, metric, of=None):
    return next(r for r in result["rows"] if r["metric"].startswith(metric) and of in (None, r["of"]))


def change(result, metric, of):
    return next(c for c in result["changes"] if c["metric"].startswith(metric) and c["of"] == of)


@pytest.fixture(scope="module")
def exact(media):
    return report(media, PixelCodec(), WaveformCodec())


def test_a_perfect_codec_loses_nothing(exact):
    psnr, snr = row(exact, "PSNR"), row(exact, "SNR")
    assert psnr["is_exact"] and psnr["value"] is None and row(exact, "SSIM")["value"] == pytest.approx(1)
    assert snr["is_exact"] or snr["value"] > 80
    assert row(exact, "flicker, levels")["value"] == row(exact, "log-spectral distance")["value"] == 0
    for event in ("onset", "flash"):
        assert row(exact, f"{event} shift")["value"] == 0
    assert row(exact, "onsets kept")["value"] == row(exact, "flashes kept")["value"] == 100
    for of in (SOUND, PICTURE, BOTH):
        assert change(exact, "common offset", of)["value"] == change(exact, "sync F1", of)["value"] == 0
    assert row(exact, "sync F1", "real pairs")["value"] > 0.95
    assert row(exact, "sync F1", "real pairs, shuffled")["high"] < row(exact, "sync F1", BOTH)["low"]
    assert any("do not move sound and picture apart" in sentence for sentence in exact["findings"])
    assert exact["codecs"]["audio"]["compression"] == exact["codecs"]["video"]["compression"] == 1
    assert json.loads(json.dumps(exact, allow_nan=False)) == exact
    assert "infinite (exact)" in format_result(exact)


def test_a_sound_that_comes_40_ms_late_is_reported_as_such(media):
    result = report(media, PixelCodec(), LateCodec())
    moved = change(result, "common offset", BOTH)
    assert moved["value"] == pytest.approx(40, abs=3) and 30 < moved["low"] < moved["high"] < 50
    assert change(result, "common offset", PICTURE)["value"] == 0
    shift = row(result, "onset shift")
    assert shift["value"] == pytest.approx(40, abs=1) and 38 < shift["low"] <= shift["high"] < 42
    assert row(result, "onsets kept")["value"] < 5
    assert result["missing"]["SNR"]
    assert any("come later: " in s and "+40" in s for s in result["findings"])


def test_a_codec_made_for_another_rate_is_named_and_seen(media, tmp_path, capsys):
    codec = MelCodec(sample_rate=44_100, n_fft=1_024, hop_length=200)
    index = {"clip": {**asdict(SPEC), "fps": str(FPS)}}
    model = save_parts(tmp_path / "model", {"video_codec": PixelCodec(), "audio_codec": codec}, index)
    assert main(["codec", "report", str(model), str(media), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert any("44100 Hz" in s and "16000 Hz" in s and "2.76 times" in s for s in result["findings"])
    bands = {band["of"]: band for band in result["bands"]}
    assert bands["4 kHz"]["high"] < -10 < bands["500 Hz"]["low"]  # 8 kHz to it are 2.9 kHz of ours
    assert any("octave bands around 4 kHz" in s for s in result["findings"])
    right = report(media, PixelCodec(), MelCodec(hop_length=200))
    assert {band["of"]: band for band in right["bands"]}["4 kHz"]["low"] > -10
    distances = [row(found, "log-spectral distance") for found in (right, result)]
    assert distances[0]["high"] < distances[1]["low"]


def test_encoded_noise_is_told_from_noise_in_latents(media, exact):
    pixels = exact["latents"]["video"]
    assert pixels["noise_stds"] == pytest.approx([1, 1], abs=0.02)
    assert pixels["half_noisy_correlation"] == pytest.approx(pixels["expected_correlation"], abs=0.02)
    assert not any("encoded noise" in sentence for sentence in exact["findings"])
    result = report(media, MelCodec(hop_length=200))
    assert result["latents"]["audio"]["noise_means"][0] > 2 and result["latents"]["audio"]["noise_stds"][1] < 0.8
    assert any("encoded noise (audio) is not the denoiser's noise" in sentence for sentence in result["findings"])


def test_sound_played_at_the_wrong_rate_loses_its_events(media):
    result = report(media, PixelCodec(), SlowCodec())
    assert change(result, "sync F1", SOUND)["high"] < -0.2
    assert change(result, "sync F1", SOUND)["verdict"] == "worse"
    assert row(result, "onsets kept")["value"] < 20
    assert row(result, "log-spectral distance")["low"] > 6
    assert result["faults"] and result["faults"][0] in result["findings"]


def test_frames_shown_twice_are_found(media, exact):
    result = report(media, HeldCodec(), WaveformCodec())
    assert row(result, "frames that stand still")["value"] > 40
    assert row(exact, "frames that stand still")["value"] == 0
    assert row(result, "flicker, levels")["low"] > 5
    moved = change(result, "common offset", PICTURE)
    assert moved["high"] < -10  # half of the flashes are seen a frame, 100 ms, too late
    assert row(result, "flash shift")["low"] > 0 or row(result, "flashes kept")["high"] < 80
    assert any("stands still" in sentence for sentence in result["findings"])


def test_flicker_is_told_from_an_error_that_stands_still(media):
    still, flickering = (report(media, TintCodec(is_flickering), WaveformCodec()) for is_flickering in (False, True))
    errors = [row(result, "PSNR")["value"] for result in (still, flickering)]
    assert errors[0] == pytest.approx(errors[1], abs=0.5)
    assert row(still, "flicker of the error")["high"] < 0.1
    assert row(flickering, "flicker of the error")["low"] > 1.2


def test_a_codec_that_does_not_return_what_it_was_given_is_refused(media):
    with pytest.raises(ValueError, match=r"audio codec: \(1, 1, 25600\) became \(1, 1, 25593\)"):
        report(media, PixelCodec(), ShortCodec())
    with pytest.raises(ValueError, match=r"video codec: .* not numbers"):
        report(media, BrokenCodec())


def test_codecs_alone_get_two_seconds_in_the_channels_that_they_take(media):
    folder = Path(__file__).resolve().parents[2] / "checkpoints" / "codec-impacts"
    spec = guess_clip(Request(folder, media), load_codecs(folder))
    assert (spec.channels, spec.sample_rate) == (1, 16_000) and spec.duration_seconds <= 2
    stereo = {"audio": MelCodec(sample_rate=44_100, channels=2, f_max=16_000.0)}
    assert guess_clip(Request(folder, media), stereo).channels == 2


def test_a_stated_rate_that_is_not_kept_is_a_finding(media):
    result = report(media, TalkativeCodec())
    assert any("makes 25600 latent steps of a clip where its stated rate, 160 a second, makes 256" in s
               for s in result["findings"])  # fmt: skip
    assert result["grid"] is None and result["missing"]["picture"]
    assert {r["of"] for r in result["rows"] if r["side"] == "agreement"} == {
        "real pairs",
        SOUND,
        "real pairs, shuffled",
    }


def test_broken_files_are_counted_and_generations_measured_alike(media, tmp_path, capsys):
    made, rng = tmp_path / "made", np.random.default_rng(8)
    for number in range(4):
        clip = make_clip(rng)
        late = np.pad(clip.waveform, ((0, 0), (3200, 0)))[:, : SPEC.num_samples]
        write_mp4(made / f"{number}.mp4", Clip(clip.frames, late, FPS, RATE))
    (made / "torn.mp4").write_bytes(b"not a video")
    model = save_parts(tmp_path / "codecs", {"video_codec": PixelCodec(), "audio_codec": WaveformCodec()})
    output = tmp_path / "out"
    arguments = ["codec", "report", str(model), str(media), "-o", str(output), "--generations", str(made), "-n", "4"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "left out: 1" in table and "torn.mp4" in table
    result = json.loads((output / "codec.json").read_text())
    assert result["protocol"]["num_clips"] == 4 and result["protocol"]["clip"]["sample_rate"] == RATE
    assert change(result, "sync F1", "made")["high"] < -0.3
    assert change(result, "common offset", "made")["value"] == pytest.approx(200, abs=40)
    assert any("by generation: worse" in sentence for sentence in result["findings"])
    page = (output / "codec.html").read_text()
    assert page.count("<video") == 8 and "made" in page and "<script src" not in page and "://" not in page


@pytest.mark.parametrize(
    ("hop", "fps", "is_nested", "common", "share"),
    [(200, 10, True, "1/10", 1), (160, 10, True, "1/10", 1), (320, 30, False, "1/10", 1 / 3)],
)
def test_grids_meet_where_they_do(hop, fps, is_nested, common, share):
    spec = ClipSpec(16 * fps // 10, Fraction(fps), 32, 32, RATE, 1)
    grid = describe_grid({"video": PixelCodec(), "audio": MelCodec(hop_length=hop)}, spec)
    assert grid["is_nested"] is is_nested and grid["common_step_seconds"] == common
    assert grid["shared_starts"] == pytest.approx(share)


def test_a_first_frame_of_its_own_moves_the_grid():
    codec = PixelCodec()
    codec.temporal_factor, codec.starts_with_one = 4, True
    assert step_starts(codec, ClipSpec(9, FPS, 32, 32, RATE, 1)) == [0, Fraction(1, 10), Fraction(1, 2)]


def test_measures_know_their_extremes():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    assert measures.ssim(frames, frames) == pytest.approx(1)
    assert measures.ssim(frames, 255 - frames) < 0
    assert np.isnan(measures.ssim(frames[:, :8], frames[:, :8]))
    wave = 0.1 * rng.standard_normal((1, RATE)).astype(np.float32)
    halved = measures.compare_sounds(wave, wave / 2, RATE)
    assert halved.log_spectral_distance == pytest.approx(6.02, abs=0.05)
    assert halved.loudness_change == pytest.approx(-6.02, abs=0.01)
    assert 10 * np.log10(halved.bands[1] / halved.bands[0]) == pytest.approx(np.full(8, -6.02), abs=0.01)
    assert np.isnan(measures.compare_sounds(0 * wave, wave, RATE).log_spectral_distance)
    assert np.isnan(measures.compare_sounds(wave[:, :3000], wave[:, :3000], RATE).loudness_change)


@pytest.mark.parametrize(
    ("words", "says"),
    [(["nowhere", "nowhere"], "no model here"), (["model", "nowhere"], "no such folder"),
     (["model", "nowhere", "-n", "1"], "give at least 2")],
)  # fmt: skip
def test_a_mistake_is_one_line(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_parts("model", {"video_codec": PixelCodec()})
    assert main(["codec", "report", *words]) == 2
    assert says in capsys.readouterr().err

"""Sound meters against sounds whose loudness, peak, silence and bandwidth are known, and against libav's own meter."""

import av
import numpy as np
import pytest

from data_tools.audit_sound import SoundMeter, WindowEnergies, count_clipped, k_weighting, longest_run
from tests.data_tools.audit_media import SHARED

STEREO = ("FL", "FR")


def tone(hertz: float, rate: int, seconds: float, level_db: float = 0.0, phase: float = 0.0) -> np.ndarray:
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate + phase)


def measure(wave: np.ndarray, rate: int, names: tuple[str, ...] = ("FL",), block: int = 7001) -> dict:
    meter, wave = SoundMeter(rate, names), np.atleast_2d(wave).astype(np.float32)
    for begin in range(0, wave.shape[1], block):
        meter.push(wave[:, begin : begin + block])
    return meter.result()


def test_the_weighting_is_the_standards_table_at_48_khz():
    """ITU-R BS.1770-5, tables 1 and 2."""
    shelf, high_pass = k_weighting(48_000)
    assert shelf == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241,
                                   0.73248077421585], abs=1e-8)  # fmt: skip
    assert high_pass == pytest.approx([1, -2, 1, 1, -1.99004745483398, 0.99007225036621], abs=1e-8)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000])
def test_loudness_of_the_standards_tones(rate):
    """A 997 Hz sine at full scale in one channel is -3.01 LUFS; at -23 dBFS in two it is -23 (EBU Tech 3341)."""
    assert measure(tone(997, rate, 4), rate)["lufs"] == pytest.approx(-3.01, abs=0.05)
    assert measure(np.stack([tone(997, rate, 4, -23)] * 2), rate, STEREO)["lufs"] == pytest.approx(-23, abs=0.06)


def test_loudness_is_gated_and_weighs_loudspeakers():
    """EBU Tech 3341, case 3 (10 s at -36, 60 s at -23, 10 s at -36 read -23); a rear channel counts 1.5 dB more."""
    rate = 16_000
    wave = np.concatenate([tone(1000, rate, 5, -36), tone(1000, rate, 30, -23), tone(1000, rate, 5, -36)])
    assert measure(np.stack([wave] * 2), rate, STEREO)["lufs"] == pytest.approx(-23, abs=0.1)
    six = np.zeros((6, 4 * rate))
    names = ("FL", "FR", "FC", "LFE", "BL", "BR")
    loudness = {}
    for place in (0, 3, 4):
        six[:], six[place] = 0, tone(997, rate, 4, -20)
        loudness[place] = measure(six, rate, names)["lufs"]
    assert loudness[4] - loudness[0] == pytest.approx(1.49, abs=0.01) and loudness[3] is None


def test_peaks_between_samples_are_found():
    """A sine at a quarter of the rate, sampled 45 degrees off its crests, peaks 3 dB above its samples."""
    wave = tone(12_000, 48_000, 1, -6, np.pi / 4) * np.hanning(48_000)
    assert np.abs(wave).max() == pytest.approx(10 ** (-9 / 20), abs=0.01)
    assert measure(wave, 48_000)["true_peak_dbtp"] == pytest.approx(-6, abs=0.1)


def test_silence_clipping_and_bandwidth():
    rate, rng = 48_000, np.random.default_rng(0)
    wave = np.concatenate([np.zeros(rate), tone(440, rate, 2, -20), np.zeros(rate)])
    result = measure(wave, rate)
    assert result["silence_ratio"] == pytest.approx(0.5, abs=0.02)
    assert result["silence_longest_seconds"] == pytest.approx(1, abs=0.06)
    assert result["clipped_ratio"] == 0 and result["bandwidth_khz"] < 0.7
    spectrum = np.fft.rfft(rng.standard_normal(4 * rate))
    for edge in (4, 11, 20):
        spectrum[round(edge * 1000 * 4) :] = 0
    assert measure(0.1 * np.fft.irfft(spectrum), rate)["bandwidth_khz"] == pytest.approx(4, abs=0.15)
    loud = measure(tone(440, rate, 2, 6).clip(-1, 1), rate)
    assert loud["clipped_ratio"] == pytest.approx(2 / 3, abs=0.02)  # a sine is beyond half its height 2/3 of the time
    assert measure(tone(440, rate, 2), rate)["clipped_ratio"] == 0
    nothing = measure(np.zeros(rate), rate)
    assert nothing["silence_ratio"] == 1 and nothing["lufs"] is None and nothing["bandwidth_khz"] is None


def test_measuring_does_not_depend_on_the_blocks():
    wave = np.random.default_rng(1).normal(0, 0.1, (2, 44_100))
    one, other = measure(wave, 44_100, STEREO, 44_100), measure(wave, 44_100, STEREO, 999)
    assert one == pytest.approx(other, rel=1e-6)
    energies = WindowEnergies(11_025, 0.05)  # 551.25 samples a window
    for piece in np.split(np.ones(11_025), 25):
        energies.push(piece)
    assert len(energies.means()) == 20 and energies.means() == pytest.approx(1, abs=2e-3)
    assert longest_run(np.array([0, 1, 1, 0, 1, 1, 1], bool)) == 3
    assert count_clipped(np.array([[1, 1, 0, -1, -1, 1, 0.5]])) == 3


@pytest.mark.parametrize("name", ["bbb_020s.mp4", "bigbuckbunny_5s.mp4", "vizdoom_freedoom2_map01.mp4"])
def test_loudness_and_true_peak_agree_with_libavs_meter(name):
    if not (SHARED / name).is_file():
        pytest.skip("../shared/media is not here")
    told, blocks = {}, []
    with av.open(str(SHARED / name)) as container:
        stream = container.streams.audio[0]
        graph = av.filter.Graph()
        source, meter = graph.add_abuffer(template=stream), graph.add("ebur128", "peak=true:metadata=1")
        sink = graph.add("abuffersink")
        source.link_to(meter)
        meter.link_to(sink)
        graph.configure()
        for frame in container.decode(stream):
            blocks.append(frame.to_ndarray())
            graph.push(frame)
            while True:
                try:
                    told |= graph.pull().metadata
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
        result = measure(np.concatenate(blocks, 1), stream.sample_rate, [c.name for c in stream.layout.channels])
    assert result["lufs"] == pytest.approx(float(told["lavfi.r128.I"]), abs=0.05)
    peak = 20 * np.log10(float(told["lavfi.r128.true_peak"]))
    assert result["true_peak_dbtp"] == pytest.approx(peak, abs=0.1)

"""Backends that another package brings, found by its entry points; tiny pipelines of diffusers, built once."""

import functools
import textwrap

import pytest

PLUGIN = '''
"""A text-to-video and a video-to-audio backend without networks; what they are asked for by name they do wrong."""

from fractions import Fraction

import numpy as np

from mmdiff.media import Sound
from mmdiff.pipelines.two_stage import BackendInfo, Video

loaded, asked = [], []


class Painter:
    """Grey that grows brighter from frame to frame; its tint is the seed's."""

    def __init__(self, fault):
        loaded.append("painter")
        self.fault = fault
        self.info = BackendInfo("painter", fault, revision="r1", licence="CC0-1.0")

    def __call__(self, prompt, *, negative_prompt=None, seconds=None, fps=None, size=None, seed=0,
                 num_inference_steps=None, guidance_scale=None, callback=None):
        asked.append({"prompt": prompt, "seed": seed, "negative_prompt": negative_prompt})
        fps, (width, height) = fps or Fraction(10), size or (32, 16)
        count = round((seconds or 1) * fps)
        callback(1, 2)
        if self.fault == "stop" and len(asked) == 2:
            raise KeyboardInterrupt
        frames = np.full((count, height, width, 3), seed % 100, np.uint8)
        frames += np.arange(count, dtype=np.uint8)[:, None, None, None]
        callback(2, 2)
        sound = Sound(np.full((1, round(count / fps * 8000)), 0.25, np.float32), 8000)
        wrong = {"empty": frames[:0], "float": frames / 255, "flat": frames[..., 0], "odd": frames[:, :15, :31]}
        return frames if self.fault == "array" else Video(
            wrong.get(self.fault, frames), 0 if self.fault == "still" else fps,
            None if self.fault == "mute" else sound)


class Drummer:
    """A click at the beginning, of a height that the seed gives."""

    def __init__(self, fault):
        loaded.append("drummer")
        self.fault = fault
        self.info = BackendInfo("drummer", fault, sample_rate=16000, channels=1, needs_text=False,
                                max_seconds=Fraction(2) if fault == "short" else None)

    def __call__(self, video, prompt, *, negative_prompt=None, seed=0, num_inference_steps=None, guidance_scale=None,
                 callback=None):
        wave = np.zeros((1, round(video.duration_seconds * 16000)), np.float32)
        wave[:, :100] = 0.1 + seed % 7 / 10
        callback(3, 3)
        rate = 44100 if self.fault == "rate" else 16000
        wave = {"nan": wave * np.nan, "double": wave.astype(float), "stereo": np.repeat(wave, 2, 0), "flat": wave[0],
                "brief": wave[:, :1000], "none": None}.get(self.fault, wave)
        return wave if self.fault == "array" else Sound(wave, rate)


def painter(source, options):
    return Painter(source)


def drummer(source, options):
    return Drummer(source)


def broken(source, options):
    import a_package_that_nobody_has
'''
ENTRY_POINTS = """
[mmdiff.text_to_video]
painter = tiny_backends:painter
broken = tiny_backends:broken

[mmdiff.video_to_audio]
drummer = tiny_backends:drummer
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Another package as pip leaves it: a module and its entry points. Returns the module."""
    site = tmp_path / "site-packages"
    facts = site / "tiny_backends-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "tiny_backends.py").write_text(textwrap.dedent(PLUGIN))
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-backends\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(__import__("sys").modules, "tiny_backends", raising=False)
    return __import__("tiny_backends")


@pytest.fixture(scope="session")
def tiny():
    """Return tiny pipelines by name, each built once."""
    from tests.pipelines.two_stage.tiny_pipelines import tiny

    return functools.cache(tiny)


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory):
    """Return the folders of tiny pipelines by name, each written once."""
    folder = tmp_path_factory.mktemp("tiny")

    @functools.cache
    def write(name):
        tiny(name).save_pretrained(folder / name)
        return folder / name

    return write

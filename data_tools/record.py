"""Gameplay of Freedoom recorded through ViZDoom: picture and sound of every tic, events from the game's counters.

An event's time is the number of its frame over 35, uncorrected: the frame in which a counter has changed is the one in
which the thing is first seen and heard. Measured over 146 shots (five places, 320x240, 22,050 Hz): the muzzle flash
begins in the counter's frame in 144; the other two are second rounds of a burst, whose flash is lit already. Where it
was quiet before (84 shots) the sound rises 1.0 ms (median; at most 1.9 ms) after the event's time. Pickups and pain
likewise.
"""

import contextlib
import ctypes
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import soxr

from data_tools.agent import BUTTONS, Agent, Sight
from data_tools.footage import SPLIT_FRACTIONS, Footage, Render, assign_splits, write_clip, write_footage
from mmdiff.data.manifest import MANIFEST_NAME, Entry, Event, write_manifest
from mmdiff.media.audio import to_channels
from mmdiff.media.clip import Clip
from mmdiff.media.mux import write_mp4
from mmdiff.media.video import fit

FPS = Fraction(35)  # one frame a tic, the game's clock
LICENCE = "BSD-3-Clause (Freedoom art and sound)"
SILENCE = 1e-3  # of full scale: a recording that never gets louder is taken for silent
SMALL = {"crf": 26, "audio_bitrate": 64_000}
ENGINE_RATES = (22_050, 44_100)  # whole numbers of samples a tic
ENGINE_SIZES = ((240, 320), (480, 640), (960, 1280))
COUNTERS = (
    "SELECTED_WEAPON_AMMO", "SELECTED_WEAPON", "HITCOUNT", "KILLCOUNT", "HEALTH", "ARMOR", "ITEMCOUNT", "AMMO2",
    "AMMO3", "ATTACK_READY", "VELOCITY_X", "VELOCITY_Y",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """A place to play: its configuration in ViZDoom's wheel, how hard it is, what a viewer would call it, the map."""

    config: str
    skill: int
    caption: str
    map_name: str = ""


SCENARIOS = {
    "defend_the_center": Scenario("defend_the_center.cfg", 3, "shooting at monsters that close in on a round arena"),
    "deadly_corridor": Scenario("deadly_corridor.cfg", 1, "a gunfight along a corridor"),
    "health_gathering": Scenario("health_gathering_supreme.cfg", 3, "gathering medical kits in a maze of acid"),
    "freedoom2_map01": Scenario("freedoom2.cfg", 2, "exploring and fighting in a base", map_name="map01"),
    "freedoom1_e1m1": Scenario("freedoom1.cfg", 2, "exploring and fighting in a bunker", map_name="e1m1"),
    "freedoom2_map07": Scenario("freedoom2.cfg", 2, "exploring and fighting in a fortress", map_name="map07"),
}


def record_freedoom(
    out: Path,
    *,
    count: int = 12,
    seconds: float = 34,
    height: int = 240,
    width: int = 320,
    sample_rate: int = 16_000,
    channels: int = 2,
    seed: int = 0,
    workers: int = 1,
    scenarios: Sequence[str] = tuple(SCENARIOS),
    fractions: Sequence[float] = SPLIT_FRACTIONS,
    is_small: bool = False,
) -> list[Entry]:
    """Record `count` files, going round the scenarios, with their manifest; the same seed gives the same bytes.

    is_small: about half the bytes, at some loss; one file after another, and an interrupted run begins again.

    Errors: `ValueError` where ViZDoom or OpenAL is missing, a scenario is unknown or a recording is silent.
    """
    scenarios = check_scenarios(scenarios)
    check_engine()
    size = {"seconds": seconds, "height": height, "width": width, "sample_rate": sample_rate, "channels": channels}
    renders = []
    for index in range(count):
        name = scenarios[index % len(scenarios)]
        renders.append((f"{name}-{seed}-{index:04d}", partial(render_freedoom, seed, index, scenario=name, **size)))
    if is_small:
        return _write_small(Path(out), renders, assign_splits([key for key, _ in renders], seed, fractions))
    return write_footage(out, renders, seed=seed, workers=workers, name="freedoom", fractions=fractions)


def render_freedoom(
    seed: int, index: int, *, scenario: str, seconds: float, height: int, width: int, sample_rate: int, channels: int
) -> Footage:
    """Play and record one clip; deterministic by seed and index.

    Errors: `ValueError` where the recording is silent or the engine does not start.
    """
    rng = np.random.default_rng((seed, index))
    num_frames = round(seconds * FPS)
    engine_rate = next((rate for rate in ENGINE_RATES if rate >= sample_rate), ENGINE_RATES[-1])
    engine_size = next((s for s in ENGINE_SIZES if s[0] >= height and s[1] >= width), ENGINE_SIZES[-1])
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.chdir(folder):  # the engine leaves folders where it starts
            game = _start(SCENARIOS[scenario], engine_rate, engine_size, int(rng.integers(1 << 31)), Path(folder))
        try:
            frames, sound, events = _play(game, Agent(rng), num_frames, height, width)
        finally:
            game.close()
    if np.abs(sound).max(initial=0) < SILENCE:
        raise ValueError(
            f"{scenario}, clip {index}: {seconds:g} s of game without a sound, so nothing was written; is OpenAL "
            "installed (Debian: apt-get install libopenal1)? If it is, record longer clips"
        )
    if engine_rate != sample_rate:
        sound = soxr.resample(sound, engine_rate, sample_rate, quality="HQ")
    num_samples = round(num_frames / FPS * sample_rate)
    wave = np.pad(sound.T, ((0, 0), (0, max(num_samples - len(sound), 0))))[:, :num_samples].clip(-1, 1)
    wave = np.ascontiguousarray(to_channels(wave, channels), np.float32)
    return Footage(Clip(frames, wave, FPS, sample_rate), events, SCENARIOS[scenario].caption, LICENCE)


def check_scenarios(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names if all of them are known scenarios.

    Errors: `ValueError` that lists the known ones.
    """
    wrong = [name for name in names if name not in SCENARIOS]
    if wrong or not names:
        raise ValueError(f"scenarios: '{', '.join(wrong)}' unknown; choose from {', '.join(SCENARIOS)}")
    return tuple(names)


def check_engine():
    """Import ViZDoom, make sure that it can make sound, and return the module.

    Errors: `ValueError` that says what to install.
    """
    try:
        import vizdoom
    except ImportError as error:
        raise ValueError(
            "recording needs ViZDoom, which is not installed here: pip install mmdiff[record], and on Debian "
            f"apt-get install libopenal1 for its sound ({error})"
        ) from error
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libopenal.so.1")
        except OSError as error:
            raise ValueError(
                "recording needs the system library OpenAL, without which the game is silent: on Debian "
                f"apt-get install libopenal1 ({error})"
            ) from error
    return vizdoom


def find_events(frame: int, before: dict[str, float], now: dict[str, float]) -> list[Event]:
    """Return what happened between the counters of frame number `frame` and of the one before it."""
    time = round(frame / float(FPS), 6)
    rose = {name: now[name] - before[name] for name in now}
    found = []
    if now["SELECTED_WEAPON"] == before["SELECTED_WEAPON"] and rose["SELECTED_WEAPON_AMMO"] < 0:
        found.append(Event(time, "shot", "a gun is fired"))
    if rose["HITCOUNT"] > 0:
        found.append(Event(time, "hit", "a shot strikes a monster"))
    if rose["KILLCOUNT"] > 0:
        found.append(Event(time, "kill", "a monster falls"))
    if max(rose[name] for name in ("HEALTH", "ARMOR", "ITEMCOUNT", "AMMO2", "AMMO3")) > 0:
        found.append(Event(time, "pickup", "something is picked up"))
    if rose["HEALTH"] < 0:
        found.append(Event(time, "pain", "the player is hurt"))
    return found


def _write_small(out: Path, renders: Sequence[tuple[str, Render]], splits: dict[str, str]) -> list[Entry]:
    """Write the clips with fewer bytes than usual, and their manifest."""
    if (out / MANIFEST_NAME).exists():
        raise ValueError(f"{out}: holds footage already; choose another folder or delete this one")
    entries = []
    for key, render in renders:
        footage, path = render(), f"files/{splits[key]}/{key}.mp4"
        entry = write_clip(out, path, lambda footage=footage: footage, key, f"freedoom/{key}", splits[key])
        write_mp4(out / path, footage.clip, **SMALL)
        entries.append(replace(entry, sha256=hashlib.sha256((out / path).read_bytes()).hexdigest()))
    write_manifest(out, entries)
    return entries


def _start(scenario: Scenario, sample_rate: int, size: tuple[int, int], seed: int, folder: Path):
    """Return a running game that draws and sounds every tic."""
    vizdoom = check_engine()
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.__file__).parent / "scenarios" / scenario.config))
    game.set_doom_config_path(str(folder / "engine.ini"))
    if scenario.map_name:
        game.set_doom_map(scenario.map_name)
    game.set_doom_skill(scenario.skill)
    game.set_episode_timeout(0)
    game.set_seed(seed)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_window_visible(False)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{size[1]}X{size[0]}"))
    game.set_render_hud(False)
    game.set_render_messages(False)
    game.set_render_screen_flashes(True)  # pickups and pain are seen, not only heard
    game.set_labels_buffer_enabled(True)
    game.set_available_buttons([getattr(vizdoom.Button, name) for name in BUTTONS])
    game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in COUNTERS])
    game.set_audio_buffer_enabled(True)
    game.set_audio_sampling_rate(getattr(vizdoom.SamplingRate, f"SR_{sample_rate}"))
    game.set_audio_buffer_size(1)  # tics: exactly the sound heard during the frame
    game.add_game_args("+snd_efx 0")  # the engine aborts with it
    try:
        game.init()
    except vizdoom.ViZDoomErrorException as error:
        raise ValueError(f"{scenario.config}: ViZDoom does not start: {error}") from error
    return game


def _play(game, agent: Agent, num_frames: int, height: int, width: int):
    """Return frames uint8 `f h w 3`, sound float32 `n 2` in [-1, 1], and the events."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    sounds, events, before = [], [], None
    for number in range(num_frames):
        while game.is_episode_finished():
            game.new_episode()
            before = None
        state = game.get_state()
        now = dict(zip(COUNTERS, state.game_variables.tolist(), strict=True))
        frames[number] = fit(state.screen_buffer, height, width)
        sounds.append(state.audio_buffer.astype(np.float32) / 32768)
        events += find_events(number, before, now) if before else []
        before = now
        game.make_action(agent.act(_sight(state, now)), 1)
    return frames, np.concatenate(sounds), tuple(events)


def _sight(state, counters: dict[str, float]) -> Sight:
    """Return what the agent may know of a state: where the largest monster stands, and whether it is stuck."""
    width = state.screen_buffer.shape[1]
    monsters = [label for label in state.labels if label.object_category == "Monster"]
    kits = [label for label in state.labels if label.object_category in ("Health", "Item", "Armor", "Ammo", "Weapon")]
    goals = monsters or kits
    nearest = max(goals, key=lambda label: (label.width * label.height, label.object_id), default=None)
    return Sight(
        bearing=None if nearest is None else (nearest.x + nearest.width / 2) / width - 0.5,
        is_monster=bool(monsters),
        is_ready=counters["ATTACK_READY"] > 0,
        speed=float(np.hypot(counters["VELOCITY_X"], counters["VELOCITY_Y"])),
    )

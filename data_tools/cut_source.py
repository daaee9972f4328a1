"""Cutting one recording, front to back, into its clips: the stage that every engine runs, in a process of its own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from data_tools.cut_config import DETECTORS, SOURCE, CutConfig, tool_version
from data_tools.cut_picture import PictureFitter
from data_tools.cut_reader import MAX_PIXELS, Damage, Shown, read_frames, scan
from data_tools.cut_writer import ClipWriter, check_clip
from data_tools.dataset import file_sha256, write_text
from data_tools.plan import Span, plan_fixed, plan_shot, short_reason, wanted_stamps
from data_tools.shots import ShotFinder
from data_tools.sources import Source, fetch, is_remote
from mmdiff.media.audio import read_audio
from mmdiff.media.container import open_media
from mmdiff.media.mux import AAC_RATES
from mmdiff.media.video import require_video

STAGING = "files/.cutting"  # finished clips wait here until all recordings have their split
TELL_EVERY = 50  # frames between two signs of life

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class CutTask:
    """A recording to cut into clips below `out`; `local` is a copy of a remote one; `threads` decode it."""

    source: Source
    out: Path
    config: CutConfig
    local: Path | None = None
    threads: int = 1

    @property
    def state_path(self) -> Path:
        """Where the recording's state is kept."""
        return self.out / "state" / f"{self.source.state_name}.json"


@dataclass
class _Open:
    """A clip that is being written: the next of its frames, and the shot changes in it, in ticks."""

    span: Span
    key: str
    writer: ClipWriter | None = None
    next_frame: int = 0
    repeated: int = 0
    shots: list[int] = field(default_factory=list)


def cut_source(task: CutTask, tell: Tell) -> dict[str, Any]:
    """Cut a recording, and return its state: the clips' rows and what was left out, as it is written to `state_path`.

    What an interrupted run finished is kept. Whatever is wrong with the recording is one reject.
    """
    state = load_state(task) or new_state(task)
    if state["is_done"]:
        return state
    remote = fetch(task.source, task.out / "state", lambda: tell({})) if _must_fetch(task) else None
    path = remote or task.local or Path(task.source.location)
    try:
        _Cutter(task, path, state, tell).run()
    except ValueError as error:
        state["rejects"].append(reject(task.source, _rule(str(error)), _without_place(str(error), path, task.source)))
    finally:
        if remote is not None:
            remote.unlink(missing_ok=True)
    return finish_state(task, state)


def plan_source(task: CutTask, tell: Tell) -> dict[str, Any]:
    """Return how many clips a recording would give (in scene mode: at most), or why none."""
    state = new_state(task)
    remote = fetch(task.source, task.out / "state", lambda: tell({})) if _must_fetch(task) else None
    path = remote or task.local or Path(task.source.location)
    try:
        recording = scan(path)
        state["planned"] = len(plan_fixed(recording, task.config))
        if not state["planned"]:
            state["rejects"].append(reject(task.source, "too short", short_reason(recording, task.config)))
    except ValueError as error:
        state["rejects"].append(reject(task.source, _rule(str(error)), _without_place(str(error), path, task.source)))
    finally:
        if remote is not None:
            remote.unlink(missing_ok=True)
    tell({"planned": state["planned"]})
    return state


def new_state(task: CutTask) -> dict[str, Any]:
    """Return the state of a recording that nothing has been done to."""
    return {
        "name": task.source.name, "stamp": task.source.stamp, "settings": task.config.fingerprint(), "sha256": "",
        "planned": 0, "is_done": False, "rows": [], "rejects": [],
    }  # fmt: skip


def load_state(task: CutTask) -> dict[str, Any] | None:
    """Return a recording's state, as far as it holds for this task: the same file, the same settings."""
    try:
        state = json.loads(task.state_path.read_text(encoding="utf-8"))
        if (state["stamp"], state["settings"]) != (task.source.stamp, task.config.fingerprint()):
            return None
        there = [row for row in state["rows"] if find_clip(task.out, row["key"])]
        if len(there) < len(state["rows"]):
            state.update(rows=there, is_done=False, rejects=[])
        return state
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no state, or one cut short: the recording is cut again


def finish_state(task: CutTask, state: dict[str, Any]) -> dict[str, Any]:
    """Note in the recording's file that it is done."""
    state["is_done"] = True
    _save(task, state)
    return state


def reject(source: Source, rule: str, reason: str, key: str = "") -> dict[str, str]:
    """Return a line of the rejects."""
    return {"source": source.name, "key": key, "stage": "cut", "rule": rule, "reason": reason}


def find_clip(out: Path, key: str) -> Path | None:
    """Return where a clip lies: waiting for its split, or in one."""
    places = [out / STAGING / f"{key}.mp4", *(out / "files").glob(f"*/{key}.mp4")]
    return next((place for place in places if place.is_file()), None)


class _Cutter:
    """Runs over a recording's frames and hands each to the clips that show it."""

    def __init__(self, task: CutTask, path: Path, state: dict[str, Any], tell: Tell):
        self.task, self.path, self.state, self.tell = task, path, state, tell
        self.config, self.source = task.config, task.source
        self.damage, self.faults = Damage([]), []
        self.active: list[_Open] = []

    def run(self) -> None:
        """Cut everything that is not cut yet."""
        self.state["sha256"] = file_sha256(self.path, lambda: self.tell({}))
        self.recording = recording = scan(self.path)
        spans = plan_fixed(recording, self.config)
        if not spans:
            self.state["rejects"].append(reject(self.source, "too short", short_reason(recording, self.config)))
            return
        self.state["planned"] = len(spans)
        self.tell({"planned": len(spans)})
        done = {row["key"] for row in self.state["rows"]}
        if self.config.finds_shots:  # what a shot is hangs on all frames before
            self.state["rows"], done = [], set()
        todo = [span for span in spans if span.key(self.state["sha256"]) not in done]
        self.tell({"clips": len(spans) - len(todo)})
        if todo:
            self._cut(todo)
        self._sum_up()

    def _cut(self, spans: list[Span]) -> None:
        with open_media(self.path) as container:
            stream = require_video(container, self.path)
            stream.thread_type = "AUTO" if self.task.threads > 1 else "NONE"
            stream.codec_context.thread_count = self.task.threads
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            self.fitter = PictureFitter(stream, self.config.target_size, self.config.fit)
            self.pending: Iterator[Span] = iter(spans)
            self.coming = next(self.pending, None)
            try:
                for number, (shown, is_cut) in enumerate(self._frames(container, stream, spans)):
                    if is_cut:
                        self._new_shot(shown.begin)
                    self._show(shown)
                    if number % TELL_EVERY == 0:
                        self.tell({})
            finally:
                for clip in self.active:
                    self._drop(clip)
        if self.active or self.coming is not None:
            self.faults += [self.damage.reason or "the picture ends before its packets say"]

    def _frames(self, container, stream, spans: list[Span]) -> Iterator[tuple[Shown, bool]]:
        recording, config = self.recording, self.config
        first, last = spans[0].ticks[0], max(span.ticks[-1] for span in spans)
        if not config.finds_shots:
            wanted = wanted_stamps(recording, spans) if recording.stamps is not None else None
            frames = read_frames(container, stream, recording, wanted, first, last, self.damage)
            return ((shown, False) for shown in frames)
        if config.mode == "scene":
            last = recording.ticks(recording.video_end)
        frames = read_frames(container, stream, recording, None, first, last, self.damage)
        threshold = config.threshold or DETECTORS[config.detector]
        finder = ShotFinder(config.detector, threshold, Fraction(config.min_shot), recording.fps)
        return finder.watch(shown for shown in frames if shown.end > first)

    def _new_shot(self, tick: int) -> None:
        """Note a shot change; in scene mode no clip goes across one."""
        for clip in self.active:
            clip.shots.append(tick)
        if self.config.mode == "scene":
            for clip in self.active:
                self._drop(clip)
            self.active = []
            self.pending = plan_shot(self.recording, self.config, self.recording.seconds(tick))
            self.coming = next(self.pending, None)

    def _show(self, shown: Shown) -> None:
        """Give a frame to every clip that shows it, and finish those that have all theirs."""
        while self.coming is not None and self.coming.ticks[0] < shown.end:
            self.active.append(_Open(self.coming, self.coming.key(self.state["sha256"])))
            self.coming = next(self.pending, None)
        fitted = None
        for clip in self.active:
            until = clip.next_frame
            while until < clip.span.num_frames and clip.span.ticks[until] < shown.end:
                until += 1
            if until > clip.next_frame:
                fitted = fitted or self.fitter(shown.frame)
                self._write(clip, fitted, until)
        for clip in [clip for clip in self.active if clip.next_frame == clip.span.num_frames]:
            self.active.remove(clip)
            self._finish(clip)

    def _write(self, clip: _Open, fitted, until: int) -> None:
        if clip.writer is None:
            place = self.task.out / STAGING / f"{clip.key}.mp4"
            clip.writer = ClipWriter(place, clip.span.fps, self.fitter.size, self.fitter.tags, self.config.crf)
        clip.repeated += until - clip.next_frame - 1
        for _ in range(clip.next_frame, until):
            clip.writer.add(fitted)
        clip.next_frame = until

    def _finish(self, clip: _Open) -> None:
        """Add the sound, check the clip, and note it."""
        span, config = clip.span, self.config
        if config.max_shots is not None and len(clip.shots) + 1 > config.max_shots:
            text = f"{len(clip.shots) + 1} shots from {float(span.start):.2f} s on, more than {config.max_shots}"
            self.state["rejects"].append(reject(self.source, "shots", text, clip.key))
            return self._drop(clip)
        if self.damage.touches(span.ticks[0], span.ticks[-1]):
            self.faults.append(self.damage.reason)
            return self._drop(clip)
        rate, channels = self._sound_format()
        try:
            sound = read_audio(self.path, sample_rate=rate, channels=channels, start=span.start,
                               num_samples=span.num_samples(rate))  # fmt: skip
            place = clip.writer.finish(sound.waveform, rate, config.audio_codec)
            check_clip(place, span.num_frames, span.num_samples(rate), span.fps)
        except ValueError as error:
            self.faults.append(_without_place(str(error), self.path, self.source))
            return self._drop(clip)
        self.state["rows"].append(self._row(clip, place, rate, channels))
        _save(self.task, self.state)
        return self.tell({"clips": 1})

    def _drop(self, clip: _Open) -> None:
        if clip.writer is not None:
            clip.writer.discard()

    def _sound_format(self) -> tuple[int, int]:
        """Return the clips' sample rate and number of channels."""
        config, recording = self.config, self.recording
        rate = recording.sample_rate if config.sample_rate == SOURCE else int(config.sample_rate)
        if config.audio_codec == "aac" and rate not in AAC_RATES:
            rate = next((known for known in AAC_RATES if known >= rate), AAC_RATES[-1])
        return rate, min(recording.channels, 2) if config.channels == SOURCE else int(config.channels)

    def _row(self, clip: _Open, place: Path, rate: int, channels: int) -> dict[str, Any]:
        span, source = clip.span, self.source
        width, height = self.fitter.size
        end = span.start + span.seconds
        events = [
            {**event, "time": round(float(event["time"]) - float(span.start), 6)}
            for event in source.events if span.start <= event["time"] < end
        ]  # fmt: skip
        return {
            "key": clip.key, "source": source.group, "fps": str(span.fps), "num_frames": span.num_frames,
            "height": height, "width": width, "sample_rate": rate, "channels": channels,
            "num_samples": span.num_samples(rate), "caption": source.caption, "licence": source.licence,
            "sha256": file_sha256(place), "events": events, "begin_seconds": 0.0, "is_variable_frame_rate": False,
            "start": str(span.start), "start_seconds": round(float(span.start), 6), "end_seconds": round(float(end), 6),
            "shots": [round(float(self.recording.seconds(tick) - span.start), 6) for tick in clip.shots],
            "num_repeated_frames": clip.repeated, "source_path": source.name, "source_sha256": self.state["sha256"],
            "source_fps": str(self.recording.fps), "origin": source.origin, "tool": tool_version(),
            "settings": self.config.fingerprint(),
        }  # fmt: skip

    def _sum_up(self) -> None:
        """Say in one line what was left out, if anything was."""
        self.state["rows"].sort(key=lambda row: Fraction(row["start"]))
        if self.faults:
            text = f"{self.faults[0]}; {len(self.state['rows'])} clips are whole"
            self.state["rejects"].append(reject(self.source, "damaged", text))
        elif not self.state["rows"] and not self.state["rejects"]:
            text = f"no shot lasts {float(self.config.clip_seconds):g} s"
            self.state["rejects"].append(reject(self.source, "too short", text))


def _save(task: CutTask, state: dict[str, Any]) -> None:
    task.state_path.parent.mkdir(parents=True, exist_ok=True)
    write_text(task.state_path, json.dumps(state, indent=1, sort_keys=True) + "\n")


def _must_fetch(task: CutTask) -> bool:
    return task.local is None and is_remote(task.source)


def _rule(reason: str) -> str:
    return next((rule for rule in ("no sound", "no picture", "truncated", "no such file") if rule in reason), "damaged")


def _without_place(reason: str, path: Path, source: Source) -> str:
    """Return a reason that names the recording as the set does, not where it happens to lie."""
    return reason.removeprefix(f"{path}: ").replace(str(path), source.name)


def as_settings(config: CutConfig) -> dict[str, Any]:
    """Return a configuration as plain values."""
    return {**asdict(config), "split_fractions": list(config.split_fractions)}

"""What an audit says of a clip: its columns, and which of their values are faults."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmdiff.data.manifest import SPLITS

TEXT, NUMBER, WHOLE, FLAG, LIST, SPANS = "text", "number", "whole number", "yes or no", "list", "spans"
# name -> kind, meaning. Times count from the moment at which a player begins; None where there is nothing to measure.
COLUMNS: dict[str, tuple[str, str]] = {
    "key": (TEXT, "the clip's name in its set"),
    "path": (TEXT, "its file, relative to the set's folder"),
    "source": (TEXT, "what it was cut from; the file itself where the set does not say"),
    "split": (TEXT, "train, validation or test; empty where the set has none"),
    "faults": (LIST, "the names of its faults, worst first"),
    "severity": (NUMBER, "the worst fault's weight and a hundredth of the others'; 0 where there is none"),
    "error": (TEXT, "why it could not be read, or the first thing that could not be decoded"),
    "decodes": (FLAG, "every packet can be decoded, to the end"),
    "is_truncated": (FLAG, "the file is shorter than it says itself"),
    "missing_seconds": (NUMBER, "by which it ends before its header says"),
    "num_faults": (WHOLE, "packets and frames that could not be decoded or are marked corrupt"),
    "bytes": (WHOLE, "size of the file"),
    "sha256": (TEXT, "hash of the file"),
    "container": (TEXT, "libav's name of the format"),
    "has_video": (FLAG, "at least one frame can be shown"),
    "has_audio": (FLAG, "at least one sample can be heard"),
    "video_codec": (TEXT, ""),
    "fps": (TEXT, "frame rate as a fraction: nominal, or the average where that is 2 % off"),
    "frames_per_second": (NUMBER, "frame rate as a decimal"),
    "num_frames": (WHOLE, "frames that are shown, counted by decoding"),
    "width": (WHOLE, "pixels, after rotation"),
    "height": (WHOLE, "pixels, after rotation"),
    "rotation": (WHOLE, "degrees by which players turn the picture"),
    "is_variable_frame_rate": (FLAG, "frames come at unequal intervals"),
    "longest_frame_ms": (NUMBER, "longest time from one frame to the next"),
    "video_start_seconds": (NUMBER, "when the first frame is shown"),
    "video_seconds": (NUMBER, "from the first frame to the end of the last"),
    "hidden_ms": (NUMBER, "picture that the file holds before its first shown frame, hidden by an edit list"),
    "audio_codec": (TEXT, ""),
    "sample_rate": (WHOLE, "Hz"),
    "channels": (WHOLE, ""),
    "num_samples": (WHOLE, "samples that are heard, of each channel, counted by decoding"),
    "audio_start_seconds": (NUMBER, "when the first sample is heard"),
    "audio_seconds": (NUMBER, "from the first sample to the end of the last"),
    "sound_holes_ms": (NUMBER, "sound that is missing between its beginning and end"),
    "start_gap_ms": (NUMBER, "by which the picture begins after the sound; negative: before"),
    "duration_gap_ms": (NUMBER, "by which the picture lasts longer than the sound; negative: shorter"),
    "silence_ratio": (NUMBER, "share of 50-ms windows below -60 dBFS"),
    "silence_longest_seconds": (NUMBER, "longest silence"),
    "lufs": (NUMBER, "integrated loudness, ITU-R BS.1770-5; None below -70"),
    "true_peak_dbtp": (NUMBER, "highest value between samples, interpolated to four times the rate"),
    "clipped_ratio": (NUMBER, "share of samples in rows of three or more at full scale"),
    "bandwidth_khz": (NUMBER, "frequency above which 95 % of windows hold less than -60 dB of their peak"),
    "black_ratio": (NUMBER, "share of the picture's duration in which 98 % of it is darker than 10 %"),
    "black_spans": (SPANS, "[start, end] in seconds, the first 20"),
    "frozen_ratio": (NUMBER, "share of the picture's duration that stands still for a second or more"),
    "frozen_spans": (SPANS, "[start, end] in seconds, the first 20"),
    "bars_ratio": (NUMBER, "share of the picture that black bars cover (letterbox, pillarbox)"),
    "bars": (LIST, "bars at the top, bottom, left, right, as shares of height and width"),
    "onsets_heard": (WHOLE, "sudden sounds"),
    "onsets_seen": (WHOLE, "sudden changes of the picture"),
    "sync_f1": (NUMBER, "how many of both agree within a frame or 50 ms; 1 is all, 0 none"),
    "sync_offset_ms": (NUMBER, "sound minus picture at which most agree; None where that is not sure"),
    "sync_confidence": (NUMBER, "-log10 of the probability that so many agree somewhere by chance"),
    "duplicate_of": (TEXT, "key of the first clip with the same content"),
    "duplicate_how": (TEXT, "file, picture and sound, picture, or sound"),
    "duplicate_share": (NUMBER, "share of the fingerprint in the common stretch that agrees"),
    "leak": (TEXT, "source: the source is in another split, too; content: what is seen or heard is"),
    "leaks_with": (LIST, "keys of clips in other splits, the first 5"),
}
SILENT_SHARE, BLACK_SHARE, FROZEN_SHARE, BARS_SHARE, CLIPPED_SHARE = 0.8, 0.1, 0.3, 0.05, 0.001
HOLE_MS = 10.0
SOUND_EARLY_MS, SOUND_LATE_MS = -90.0, 185.0  # what viewers accept (ITU-R BT.1359-1)
NARROW_KHZ = 4.0


@dataclass(frozen=True)
class Fault:
    """A value of a row that harms training: its kind's name, how bad the kind is, how large, and a sentence."""

    name: str
    weight: float
    size: float
    text: str


def blank_row() -> dict[str, Any]:
    """Return a row in which nothing is known."""
    return dict.fromkeys(COLUMNS) | {"faults": [], "leaks_with": [], "error": ""}


def find_faults(row: Mapping[str, Any], told: Mapping[str, Any]) -> list[Fault]:
    """Return a row's faults, worst first; `told` is what the set's own list says of the clip."""
    if row["error"] and not row["has_video"] and not row["has_audio"]:
        name = "truncated" if row["is_truncated"] else "damaged"
        return [Fault(name, 100, 1, row["error"])]
    found = [fault for check in CHECKS if (fault := check(row)) is not None]
    found += _against_list(row, told)
    return sorted(found, key=lambda fault: (-fault.weight, -fault.size))


def split_order(name: str) -> tuple[int, str]:
    """Return what sorts splits as people name them: train, validation, test, then others."""
    return SPLITS.index(name) if name in SPLITS else len(SPLITS), name


def weigh(faults: Sequence[Fault]) -> float:
    """Return how bad a row is, for putting the worst first; its faults come worst first."""
    return faults[0].weight + sum(fault.weight for fault in faults[1:]) / 100 if faults else 0.0


def _truncated(row: Mapping) -> Fault | None:
    missing = row["missing_seconds"] or 0
    text = f"ends {missing:.2f} s before its header says"
    return Fault("truncated", 90, missing, text) if missing else None


def _no_stream(row: Mapping) -> Fault | None:
    for name, noun in (("has_video", "picture"), ("has_audio", "sound")):
        if not row[name]:
            return Fault(f"no {noun}", 80, 1, f"no {noun}")
    return None


def _start_gap(row: Mapping) -> Fault | None:
    gap = row["start_gap_ms"]
    if gap is None or abs(gap) <= _frame_ms(row):
        return None
    return Fault("start gap", 70, abs(gap), f"the picture begins {abs(gap):.0f} ms {_after(gap)} the sound")


def _duration_gap(row: Mapping) -> Fault | None:
    """An encoder fills its last frame: as much more sound than picture is no fault."""
    gap = row["duration_gap_ms"]
    filled = 1000 * 2048 / (row["sample_rate"] or 48_000)
    if gap is None or abs(gap) <= _frame_ms(row) + filled:
        return None
    less = "more" if gap > 0 else "less"
    return Fault("duration gap", 60, abs(gap), f"the picture lasts {abs(gap):.0f} ms {less} than the sound")


def _holes(row: Mapping) -> Fault | None:
    missing = row["sound_holes_ms"] or 0
    text = f"{missing:.0f} ms of sound are missing inside"
    return Fault("sound holes", 50, missing, text) if missing > HOLE_MS else None


def _hidden(row: Mapping) -> Fault | None:
    hidden = row["hidden_ms"] or 0
    text = f"{hidden:.0f} ms of picture are hidden before the beginning: readers that count frames see them"
    return Fault("hidden picture", 55, hidden, text) if hidden > _frame_ms(row) else None


def _decoding(row: Mapping) -> Fault | None:
    count = row["num_faults"] or 0
    text = f"{count} packets or frames cannot be decoded" + (f" ({row['error']})" if row["error"] else "")
    return Fault("decoding", 75, count, text) if count else None


def _leak(row: Mapping) -> Fault | None:
    what = {"source": "its source", "content": "what it shows or sounds"}.get(row["leak"] or "")
    text = f"{what} is in another split, too ({', '.join(row['leaks_with'])})"
    return Fault("leak", 65, len(row["leaks_with"]), text) if what else None


def _duplicate(row: Mapping) -> Fault | None:
    text = f"the same {row['duplicate_how']} as {row['duplicate_of']}"
    return Fault("duplicate", 40, row["duplicate_share"] or 0, text) if row["duplicate_of"] else None


def _offset(row: Mapping) -> Fault | None:
    offset = row["sync_offset_ms"]
    if offset is None or SOUND_EARLY_MS <= offset <= SOUND_LATE_MS:
        return None
    late = "late" if offset > 0 else "early"
    return Fault("out of sync", 45, abs(offset), f"the sound comes {abs(offset):.0f} ms {late}")


def _variable(row: Mapping) -> Fault | None:
    text = f"variable frame rate, up to {row['longest_frame_ms'] or 0:.0f} ms for a frame"
    return Fault("variable frame rate", 15, row["longest_frame_ms"], text) if row["is_variable_frame_rate"] else None


def _share(column: str, name: str, weight: float, least: float, text: str) -> Callable[[Mapping], Fault | None]:
    def check(row: Mapping) -> Fault | None:
        value = row[column]
        return Fault(name, weight, value, text.format(value)) if value is not None and value >= least else None

    return check


def _narrow(row: Mapping) -> Fault | None:
    reach = row["bandwidth_khz"]
    if reach is None or reach >= NARROW_KHZ:
        return None
    return Fault("narrow band", 5, NARROW_KHZ - reach, f"the sound reaches only {reach:.1f} kHz")


def _peak(row: Mapping) -> Fault | None:
    peak = row["true_peak_dbtp"]
    return Fault("over full scale", 4, peak, f"true peak {peak:+.1f} dBTP") if peak is not None and peak > 0 else None


CHECKS = (
    _truncated, _no_stream, _decoding, _start_gap, _hidden, _leak, _duration_gap, _holes, _offset, _duplicate,
    _variable, _narrow, _peak,
    _share("silence_ratio", "silent", 35, SILENT_SHARE, "{:.0%} of the sound is silence"),
    _share("frozen_ratio", "frozen", 30, FROZEN_SHARE, "the picture stands still for {:.0%} of its duration"),
    _share("black_ratio", "black", 25, BLACK_SHARE, "the picture is black for {:.0%} of its duration"),
    _share("bars_ratio", "bars", 12, BARS_SHARE, "black bars cover {:.0%} of the picture"),
    _share("clipped_ratio", "clipped", 10, CLIPPED_SHARE, "{:.2%} of the sound is clipped"),
)  # fmt: skip


def _against_list(row: Mapping, told: Mapping[str, Any]) -> list[Fault]:
    """Return where a file is not what its set's list says."""
    if told.get("sha256") and row["sha256"] and told["sha256"] != row["sha256"]:
        return [Fault("not as listed", 85, 1, "its bytes are not those that the manifest lists (sha256)")]
    found = row["num_frames"]
    if told.get("num_frames") and found and told["num_frames"] != found:
        text = f"{found} frames, while the manifest says {told['num_frames']}"
        return [Fault("not as listed", 85, abs(found - told["num_frames"]), text)]
    return []


def _frame_ms(row: Mapping) -> float:
    return 1000 / row["frames_per_second"] if row["frames_per_second"] else 0.0


def _after(gap: float) -> str:
    return "after" if gap > 0 else "before"

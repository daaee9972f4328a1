"""Speed of `mmdiff-data cut` against the ffmpeg command line, two processes each, doing the same exact re-encode.

Two 1080p30 recordings with a key frame every 5.3 s are made with ffmpeg (imageio-ffmpeg's, or the one on the path), and
cut to 256x256 at 10 frames a second and at their own rate: 34 s every 34 s from 10 s on, H.264 and FLAC with the same
settings. ffmpeg gets one command for each clip, with the seek before the input. Ours also hashes, and decodes every
clip again to count its frames and samples. Called by `make bench`, or alone.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_tools.cut import cut
from data_tools.cut_config import with_preset
from data_tools.cut_picture import SHRINKING

SIZE, SECONDS, SKIP = 256, 34, 10
PROCESSES = 2
NATIVE = 30


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=80, help="length of a recording (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, in turn; the quickest counts")
    options = parser.parse_args()
    for row in bench_cut(options.seconds, options.repeats):
        print(f"{row['name']:<58}{row['value']:>12.2f}  {row['unit']}")
    return 0


def bench_cut(seconds: int = 80, repeats: int = 2) -> list[dict]:
    """Return rows of `name`, `value` and `unit`; none where there is no ffmpeg to compare with."""
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        print("cut: no ffmpeg here to compare with; pip install imageio-ffmpeg", file=sys.stderr)
        return []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sources = make_sources(ffmpeg, Path(folder) / "in", seconds)
        for fps in (10, NATIVE):
            ways = {
                "mmdiff": lambda out, fps=fps: cut_ours(sources[0].parent, out, fps),
                "ffmpeg": lambda out, fps=fps: cut_ffmpeg(ffmpeg, sources, out, fps, seconds),
            }
            best = {name: {"wall": float("inf"), "processor": float("inf")} for name in ways}
            for turn in range(repeats):
                for name, way in ways.items():
                    took = measure(way, Path(folder) / f"{name}-{fps}-{turn}")
                    best[name] = {kind: min(best[name][kind], took[kind]) for kind in took}
            for kind in ("wall", "processor"):
                ours, theirs = best["mmdiff"][kind], best["ffmpeg"][kind]
                what = f"cut 1080p30 to {SIZE}x{SIZE} at {fps} fps, {kind} time"
                rows.append({"name": f"{what}, ours", "value": ours, "unit": "s"})
                rows.append({"name": f"{what}, ffmpeg", "value": theirs, "unit": "s"})
                rows.append({"name": f"{what}, ffmpeg / ours", "value": theirs / ours, "unit": "times"})
    return rows


def find_ffmpeg() -> str | None:
    """Return the ffmpeg of imageio-ffmpeg, or the one on the path."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


def make_sources(ffmpeg: str, folder: Path, seconds: int) -> list[Path]:
    """Make one recording, and a second one that differs in a box that no reader looks at."""
    folder.mkdir()
    paths = [folder / "a.mp4", folder / "b.mp4"]
    run([ffmpeg, "-f", "lavfi", "-i", f"testsrc2=size=1920x1080:rate={NATIVE}", "-f", "lavfi", "-i",
         "sine=440:beep_factor=4:sample_rate=48000", "-t", str(seconds), "-vf", "noise=alls=3:allf=t", "-c:v",
         "libx264", "-preset", "veryfast", "-crf", "23", "-g", "159", "-keyint_min", "159", "-sc_threshold", "0",
         "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2", str(paths[0])])  # fmt: skip
    paths[1].write_bytes(paths[0].read_bytes() + b"\x00\x00\x00\x09free2")
    return paths


def cut_ours(folder: Path, out: Path, fps: int) -> None:
    """Cut with two workers."""
    report = cut(str(folder), out, with_preset("game", {"fps": str(fps), "size": f"{SIZE}x{SIZE}"}), workers=PROCESSES)
    assert not report.rejects, report.rejects


def cut_ffmpeg(ffmpeg: str, sources: list[Path], out: Path, fps: int, seconds: int) -> None:
    """Cut with two ffmpeg processes at a time."""
    out.mkdir()
    starts = range(SKIP, seconds - SECONDS + 1, SECONDS)
    jobs = [(source, start) for source in sources for start in starts]
    rate = f"fps={fps}," if fps != NATIVE else ""

    def work(job: tuple[Path, int]) -> None:
        source, start = job
        run([ffmpeg, "-ss", str(start), "-i", str(source), "-t", str(SECONDS), "-vf",
             f"{rate}scale=-2:{SIZE}:flags={SHRINKING},crop={SIZE}:{SIZE}", "-frames:v", str(fps * SECONDS),
             "-c:v", "libx264", "-preset", "medium", "-crf", "18", "-bf", "0", "-g", str(fps), "-c:a", "flac",
             "-strict", "-2", "-movflags", "+faststart", str(out / f"{source.stem}-{start}.mp4")])  # fmt: skip

    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(work, jobs))


def run(words: list[str]) -> None:
    """Run ffmpeg, quietly."""
    subprocess.run([words[0], "-v", "error", "-nostdin", *words[1:]], check=True)


def measure(way: Callable[[Path], None], out: Path) -> dict[str, float]:
    """Return the seconds that a way took by the clock, and of processor time with its processes'."""
    before, started = used(), time.perf_counter()
    way(out)
    took = {"wall": time.perf_counter() - started, "processor": used() - before}
    shutil.rmtree(out)
    return took


def used() -> float:
    """Return the processor seconds of this process and of those it waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    sys.exit(main())

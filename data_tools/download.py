"""`mmdiff-data download`: recordings by yt-dlp, one file each, with a JSON beside it that `cut` reads as provenance."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from data_tools.dataset import VIDEO_ENDINGS, write_text

VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}")
NAME_TEMPLATE = "%(extractor_key)s-%(id)s.%(ext)s"
RECORDED = {"title": "title", "uploader": "uploader", "upload_date": "upload_date", "duration": "duration_seconds",
            "extractor_key": "site", "id": "id"}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A recording to fetch: its address, and its licence where the list states one."""

    url: str
    licence: str = ""


def read_list(path: Path) -> list[Wanted]:
    """Read a list: on each line an id of YouTube or an http(s) address, then, if known, the licence; # is a comment.

    Errors: `ValueError` that names the line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a text file with one id or address a line")
    wanted = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        place, _, licence = re.sub(r"(^|\s)#.*", "", line).strip().partition(" ")
        if place:
            url = _as_url(place, f"{path}:{number}")
            wanted.setdefault(url, Wanted(url, licence.strip()))
    if not wanted:
        raise ValueError(f"{path}: an empty list; give one id or address a line")
    return list(wanted.values())


def plan_options(out: Path, max_height: int | None = None) -> dict[str, Any]:
    """Return what yt-dlp is told: MP4 in OUT under a plain name, no playlists, no other programs, no settings files."""
    limit = f"[height<={max_height}]" if max_height else ""
    return {
        "paths": {"home": str(out), "temp": str(out)},
        "outtmpl": {"default": NAME_TEMPLATE},
        "restrictfilenames": True,
        "format": f"bestvideo{limit}+bestaudio/best{limit}",
        "merge_output_format": "mp4",
        "noplaylist": True,
        "overwrites": False,
        "continuedl": True,
        "ignoreerrors": False,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
    }


def download(wanted: list[Wanted], out: Path, max_height: int | None = None) -> dict[str, Any]:
    """Fetch recordings that are not there yet; return counts, and the reason of each failure.

    Errors: `ValueError` where yt-dlp is not installed.
    """
    yt_dlp = _require_yt_dlp()
    out.mkdir(parents=True, exist_ok=True)
    present, failed, fetched = present_urls(out), {}, 0
    with yt_dlp.YoutubeDL(plan_options(out, max_height)) as session:
        for item in tqdm([item for item in wanted if item.url not in present], desc="download", unit="file"):
            try:
                info = session.extract_info(item.url, download=True)
                write_sidecar(out, item, info)
                fetched += 1
            except (yt_dlp.utils.YoutubeDLError, OSError, ValueError) as error:
                failed[item.url] = str(error)
    told = {"output": str(out), "listed": len(wanted), "fetched": fetched, "failed": failed}
    return told | {"present": len(wanted) - fetched - len(failed)}


def write_sidecar(out: Path, item: Wanted, info: dict[str, Any]) -> Path:
    """Write `x.json` beside a recording `x.mp4`, from what yt-dlp returned; return its path.

    Errors: `ValueError` where no file was written, or one outside `out`.
    """
    files = [entry["filepath"] for entry in info.get("requested_downloads") or () if entry.get("filepath")]
    if len(files) != 1:
        raise ValueError(f"{item.url}: {len(files)} files were written; give the address of a single recording")
    path = Path(files[0])
    if path.resolve().parent != out.resolve() or path.suffix.lower() not in VIDEO_ENDINGS or not path.is_file():
        raise ValueError(f"{item.url}: {path.name} is no video file in {out}; give the address of a video")
    values = {name: info[field] for field, name in RECORDED.items() if info.get(field) is not None}
    told = {"url": str(info.get("webpage_url") or item.url), "licence": item.licence or str(info.get("license") or "")}
    sidecar = path.with_suffix(".json")
    text = json.dumps(values | told | {"requested": item.url}, indent=2, sort_keys=True, ensure_ascii=False)
    write_text(sidecar, text + "\n")
    return sidecar


def present_urls(out: Path) -> set[str]:
    """Return the addresses whose recordings lie in a folder already."""
    found = set()
    for path in out.glob("*.json") if out.is_dir() else ():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # not of ours, which are written whole
        has_file = any(path.with_suffix(ending).is_file() for ending in VIDEO_ENDINGS)
        if isinstance(values, dict) and has_file and values.get("requested"):
            found.add(str(values["requested"]))
    return found


def _as_url(place: str, where: str) -> str:
    if VIDEO_ID.fullmatch(place):
        return f"https://www.youtube.com/watch?v={place}"
    parts = urlsplit(place)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{where}: '{place}' is neither an id of 11 characters nor an http(s) address")
    return place


def _require_yt_dlp() -> Any:
    try:
        import yt_dlp
    except ImportError as error:
        raise ValueError("yt-dlp is missing; install it with `pip install 'mmdiff[download]'` (and ffmpeg)") from error
    return yt_dlp

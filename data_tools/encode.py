"""`mmdiff-data encode`: every clip's latents, and its caption's embedding, in files named by the hash of what they are.

out/index.jsonl                                what belongs to each clip, with the hashes of clip and weights
out/latents/<ab>/<hash>.safetensors            tensors `video` (c f h w) and `audio` (c l)
out/text/<ab>/<hash>.safetensors               tensor `text` (s d)
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from data_tools.caption_model import TextEncoder
from data_tools.dataset import DataSet, Row, file_sha256, open_set, write_text
from mmdiff.checkpoint import INDEX_NAME, check_rate, load_part
from mmdiff.data.latents import INDEX_FILE, codecs_sha256
from mmdiff.media import ClipSpec, probe, read_audio, read_video

CHUNK_PIXELS = 2**24  # of picture in memory at a time, in pixels times frames
DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Codecs:
    """A picture's and a sound's codec, the size and rates of what they take, and the SHA-256 of all of it."""

    video: nn.Module
    audio: nn.Module
    clip: ClipSpec
    sha256: str


def load_codecs(folder: Path, device: str = "cpu") -> Codecs:
    """Load the codecs of a model folder.

    Errors: `ValueError` where a part is missing or damaged.
    """
    video, audio = (load_part(folder, name) for name in ("video_codec", "audio_codec"))
    try:
        clip = ClipSpec(**json.loads((Path(folder) / INDEX_NAME).read_text(encoding="utf-8"))["clip"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}/{INDEX_NAME}: no usable 'clip' entry ({error}); export the model again") from error
    check_rate(audio, clip)
    return Codecs(video.to(device), audio.to(device), clip, codecs_sha256(folder, clip))


def encode_set(
    folder: Path, out: Path, codecs: Codecs, *, text_encoder: TextEncoder | None = None, dtype: str = "float32",
    device: str = "cpu", dry_run: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write the latents of every clip of a set, and an index; return counts, and the clips that could not be read.

    What is there already is passed over, so an interrupted call goes on, and a set that grew costs its new clips only.
    One clip's latents and sound, and a piece of its picture, are in memory at a time.
    """
    data, counts = open_set(folder), {"encoded": 0, "present": 0, "failed": 0}
    lines, faults = [], {}
    for row in tqdm(data.rows, desc="encode", unit="clip", disable=None):
        try:
            line, is_new = _encode_row(data, row, out, codecs, dtype, device, dry_run)
        except (ValueError, OSError) as error:
            faults[row.key] = str(error)
            counts["failed"] += 1
            continue
        if text_encoder is not None:
            line |= _encode_text(_caption(row), out, text_encoder, dtype, dry_run)
        lines.append(line)
        counts["encoded" if is_new else "present"] += 1
    if not dry_run:
        out.mkdir(parents=True, exist_ok=True)
        write_text(
            out / INDEX_FILE, "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines)
        )
    told = {"set": str(folder), "output": str(out), "codecs_sha256": codecs.sha256, "clips": len(data.rows)}
    return told | counts | {"faults": faults, "dry_run": dry_run}


@torch.inference_mode()
def encode_clip(path: Path, codecs: Codecs, dtype: torch.dtype, device: str = "cpu") -> dict[str, Tensor]:
    """Return a whole file's latents, `video` c f h w and `audio` c l.

    Picture and sound last equally long: as many frames, at the codecs' rate, as both streams cover. What takes frames
    one by one is given pieces, which have the same latents; any other codec the whole picture, which it slices itself.
    """
    spec, info = codecs.clip, probe(path)
    if not (info.has_video and info.has_audio):
        raise ValueError(f"{path}: no picture or no sound in this file; latents are of both")
    unit = (spec.sample_rate / spec.fps).denominator  # the fewest frames that last a whole number of samples
    sound = read_audio(path, sample_rate=spec.sample_rate, channels=spec.channels)
    picture_seconds = info.video_start + info.num_frames / info.fps
    seconds = min(picture_seconds, Fraction(sound.waveform.shape[1], spec.sample_rate))
    count = int(seconds * spec.fps + Fraction(1, 1000)) // unit * unit  # the stamps of some containers are rounded
    piece = max(CHUNK_PIXELS // (spec.height * spec.width) // unit, 1) * unit
    step = piece if codecs.video.is_framewise else max(count, 1)
    if not count:
        raise ValueError(f"{path}: shorter than {unit} frames at {spec.fps} fps; leave it out")
    pieces = []
    for first in range(0, count, step):
        window = ClipSpec(**asdict(spec) | {"num_frames": min(step, count - first)})
        frames = torch.from_numpy(read_video(path, window, start=first / spec.fps).frames).to(device)
        video = rearrange(frames.float() / 127.5 - 1, "f h w c -> 1 c f h w")
        pieces.append(codecs.video.encode(video)[0].to(dtype).cpu())
    num_samples = int(count / spec.fps * spec.sample_rate)
    waveform = torch.from_numpy(sound.waveform[:, :num_samples])
    audio = codecs.audio.encode(waveform.to(device)[None])[0]
    return {"video": torch.cat(pieces, dim=1).contiguous(), "audio": audio.to(dtype).cpu().contiguous()}


def _encode_row(
    data: DataSet, row: Row, out: Path, codecs: Codecs, dtype: str, device: str, dry_run: bool
) -> tuple[dict[str, Any], bool]:
    path = data.file(row)
    if not path.is_file():
        raise ValueError(f"{path}: listed, but not there; restore it or take it out of the list")
    digest = file_sha256(path)
    name = _place("latents", f"{digest} {codecs.sha256} {dtype}")
    shapes = _shapes(out / name)
    is_new = shapes is None
    if is_new and dry_run:
        probe(path)  # names the files that are none
    elif is_new:
        tensors = encode_clip(path, codecs, DTYPES[dtype], device)
        _save(out / name, tensors, {"clip_sha256": digest, "codecs_sha256": codecs.sha256})
        shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
    line = {
        "key": row.key, "path": row.path, "source": row.source, "split": row.split, "caption": _caption(row),
        "licence": str(row.values.get("licence") or ""), "sha256": digest, "codecs_sha256": codecs.sha256,
        "latents": name, "shapes": shapes, "dtype": dtype, "fps": str(codecs.clip.fps),
        "sample_rate": codecs.clip.sample_rate,
    }  # fmt: skip
    return line, is_new


def _encode_text(caption: str, out: Path, encoder: TextEncoder, dtype: str, dry_run: bool) -> dict[str, Any]:
    """Write a caption's embedding, one file for all clips with the same caption."""
    name = _place("text", f"{encoder.sha256} {dtype} {caption}")
    if _shapes(out / name) is None and not dry_run:
        states = encoder.encode(caption).to(DTYPES[dtype]).cpu().contiguous()
        _save(out / name, {"text": states}, {"model_sha256": encoder.sha256})
    return {"text": name, "text_model": encoder.name, "text_model_sha256": encoder.sha256}


def _caption(row: Row) -> str:
    return str(row.values.get("caption") or row.values.get("text") or "")


def _place(kind: str, what: str) -> str:
    digest = hashlib.sha256(what.encode()).hexdigest()
    return f"{kind}/{digest[:2]}/{digest}.safetensors"


def _shapes(path: Path) -> dict[str, list[int]] | None:
    """Return the shapes in a file; nothing where there is none that is whole."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    except SafetensorError:
        return None


def _save(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        save_file(dict(tensors), aside, metadata=dict(told))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)

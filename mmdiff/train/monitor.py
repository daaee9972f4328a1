"""Watching a run: metrics.jsonl, TensorBoard, gradient norms and coverage by modality."""

import io
import json
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from mmdiff.media import Clip

SILENCE_RMS = 1e-3  # -60 dBFS
STILL_STD = 2 / 255


class Monitor:
    """Write every step's numbers, for people (TensorBoard) and for programs (metrics.jsonl)."""

    def __init__(self, folder: Path, first_step: int):
        self.path = Path(folder) / "metrics.jsonl"
        _drop_lines_from(self.path, first_step)
        self.file = self.path.open("a", encoding="utf-8")
        self.writer = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=first_step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Write the numbers of a step, in full precision; what is not finite is left out."""
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        numbers = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self.writer._get_file_writer().add_summary(Summary(value=numbers), step)

    def show(self, step: int, clips: list[Clip]) -> None:
        """Show sampled clips: a moving picture and its sound."""
        for number, clip in enumerate(clips):
            image = Summary.Image(
                height=clip.frames.shape[1], width=clip.frames.shape[2], colorspace=3,
                encoded_image_string=as_gif(clip),
            )  # fmt: skip
            summary = Summary(value=[Summary.Value(tag=f"preview/{number}/video", image=image)])
            self.writer._get_file_writer().add_summary(summary, step)
            sound = torch.from_numpy(clip.waveform.mean(0, keepdims=True))
            self.writer.add_audio(f"preview/{number}/audio", sound, step, sample_rate=clip.sample_rate)
        self.writer.flush()

    def close(self) -> None:
        """Finish the files."""
        self.file.close()
        self.writer.close()


def as_gif(clip: Clip) -> bytes:
    """Return a clip's frames as an endlessly repeating GIF."""
    images = [Image.fromarray(frame) for frame in clip.frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=float(1000 / clip.fps), loop=0
    )
    return buffer.getvalue()


def gradient_norms(groups: dict[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    """Return the gradient norm of every group of parameters, and of all together (`grad_norm`)."""
    norms = {}
    for name, parameters in groups.items():
        gradients = [gradient for parameter in parameters if (gradient := parameter.grad) is not None]
        if gradients:
            norms[f"grad_norm/{name}"] = torch.nn.utils.get_total_norm(gradients)
    return {"grad_norm": torch.stack(list(norms.values())).norm(), **norms}


def check_groups(groups: dict[str, list[nn.Parameter]], network: nn.Module) -> None:
    """Assert that the groups hold every parameter that learns, each once: else the norms would say too little."""
    grouped = [id(p) for parameters in groups.values() for p in parameters if p.requires_grad]
    learning = [id(p) for p in network.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(learning), f"{len(grouped)} parameters in groups, {len(learning)} learn"


def is_quartile(name: str) -> bool:
    """Say whether a loss is one of those by timestep (`loss/video/q1`), to which few examples of a step belong."""
    return name.rpartition("/")[2] in ("q1", "q2", "q3", "q4")


def gathered_means(rows: list[dict[str, Tensor]], accelerator: Accelerator) -> dict[str, float]:
    """Return the mean of every number over micro-steps and ranks; a quartile's over where it has examples."""
    names = sorted(rows[0])
    assert all(sorted(row) == names for row in rows), "a task returns the same names for every batch"
    table = torch.stack([torch.stack([row[name].detach().double() for name in names]) for row in rows])
    optional = torch.tensor([is_quartile(name) for name in names], device=table.device)
    is_absent = table.isnan() & optional
    sums = torch.stack([table.masked_fill(is_absent, 0).sum(0), (~is_absent).double().sum(0)])
    total, count = accelerator.reduce(sums, "sum").tolist()
    return {name: t / c if c else math.nan for name, t, c in zip(names, total, count)}


def coverage(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Return the share of examples whose video `b c f h w` changes, and whose audio `b c n` is not silent."""
    shares = {}
    if "video" in batch:
        changes = (batch["video"].amax(2) - batch["video"].amin(2)).flatten(1).amax(1)
        shares["coverage/video"] = (changes > STILL_STD).float().mean()
    if "audio" in batch:
        level = batch["audio"].float().square().flatten(1).mean(1).sqrt()
        shares["coverage/audio"] = (level > SILENCE_RMS).float().mean()
    return shares


def _drop_lines_from(path: Path, step: int) -> None:
    """Remove lines of steps that will be taken again, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    aside.replace(path)

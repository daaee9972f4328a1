"""A program in an environment of its own as stage 2: the clip and a request go in, a sound file comes out."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmdiff.config import build_recipe, read_settings
from mmdiff.media import Clip, Sound, read_audio, write_mp4
from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, Progress, Video
from mmdiff.pretrained import hash_path

PLACEHOLDER = re.compile(r"\{(\w+)\}")
STDERR_LINES = 8  # of a failed program, in the error
SILENT_RATE = 48_000  # of the empty sound track of the clip that a program is given


@dataclass(frozen=True)
class CommandRecipe:
    """A program and what it is; never run by a shell.

    `command`: the words, in which {video} (MP4), {request} (JSON), {output} (WAV), {folder} (an empty one), {prompt},
    {negative_prompt}, {seed}, {seconds}, {num_inference_steps} and {guidance_scale} stand for what they name.
    `working_folder`: where it runs. `result`: the sound file that it writes, {output} by default. `hold_seconds`: so
    much longer the clip's last frame stays, for programs that lose the last moments. `install`: what to do where the
    program is missing. `name`, `revision`, `licence`, `sample_rate`, `channels`, `max_seconds` and `needs_text` are
    facts; what the program returns must agree with them.

    Errors: `ValueError` where there is no command, or a placeholder is none of these.
    """

    command: tuple[str, ...] = ()
    name: str = "command"
    working_folder: str | None = None
    result: str = "{output}"
    hold_seconds: float = 0.0
    timeout_seconds: float = 1800.0
    num_inference_steps: int = 25
    guidance_scale: float = 4.5
    install: str = ""
    revision: str | None = None
    licence: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    max_seconds: float | None = None
    needs_text: bool = False

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("command is empty; write the program and its arguments as a list")
        known = {"video", "request", "output", "folder", "prompt", "negative_prompt", "seed", "seconds",
                 "num_inference_steps", "guidance_scale"}  # fmt: skip
        for word in (*self.command, self.result):
            stray = [name for name in PLACEHOLDER.findall(word) if name not in known]
            if stray:
                raise ValueError(f"unknown placeholder {{{stray[0]}}}; known are {', '.join(sorted(known))}")
        if not self.timeout_seconds > 0 or not self.hold_seconds >= 0:
            raise ValueError(f"timeout_seconds is {self.timeout_seconds} (write more than 0), hold_seconds "
                             f"{self.hold_seconds} (write 0 or more)")  # fmt: skip


class CommandVideoToAudio:
    """Runs a recipe's program once for every clip, or window of a clip."""

    def __init__(self, recipe: CommandRecipe, info: BackendInfo | None = None):
        self.recipe = recipe
        self.info = info or info_of(recipe, "", None)

    def __call__(
        self, video: Video, prompt: str, *, negative_prompt: str | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Sound:  # fmt: skip
        """Return the sound that the program made.

        Errors: `ValueError` where it is not there, fails, takes too long or writes no sound; with its last lines.
        """
        program = self._program()
        if callback is not None:
            callback(0, 1)
        with tempfile.TemporaryDirectory(prefix="mmdiff-") as scratch:
            folder = Path(scratch)
            (folder / "made").mkdir()
            values = {
                "video": str(_write_silent(folder / "clip.mp4", video, self.recipe.hold_seconds)),
                "request": str(folder / "request.json"),
                "output": str(folder / "sound.wav"),
                "folder": str(folder / "made"),
                "prompt": prompt,
                "negative_prompt": negative_prompt or "",
                "seed": seed,
                "seconds": float(video.duration_seconds),
                "num_inference_steps": num_inference_steps or self.recipe.num_inference_steps,
                "guidance_scale": self.recipe.guidance_scale if guidance_scale is None else guidance_scale,
            }
            request = values | {"fps": str(video.fps), "num_frames": video.num_frames}
            Path(values["request"]).write_text(json.dumps(request, indent=2) + "\n", encoding="utf-8")
            words = [program, *(_filled(word, values) for word in self.recipe.command[1:])]
            self._run(words, folder)
            result = Path(_filled(self.recipe.result, values))
            if not result.is_file():
                raise ValueError(f"{self.info.name}: the program ended well, but wrote no {result.name}; "
                                 f"{_last_lines(folder / 'stderr')}")  # fmt: skip
            sound = read_audio(result)
        if callback is not None:
            callback(1, 1)
        return sound

    def _program(self) -> str:
        """Return the program's path.

        Errors: `ValueError` where it is not there, with the recipe's word on how to install it.
        """
        word = Path(_filled(self.recipe.command[0], {})).expanduser()
        folder = self._folder()
        mend = f"; {self.recipe.install}" if self.recipe.install else "; change the recipe's command"
        if not folder.is_dir():
            raise ValueError(f"{self.info.name} is not installed: no folder {folder}{mend}")
        found = shutil.which(str(folder / word) if len(word.parts) > 1 else str(word))
        if found is None:
            raise ValueError(f"{self.info.name} is not installed: no program {word}{mend}")
        return found

    def _folder(self) -> Path:
        return Path(self.recipe.working_folder or ".").expanduser().absolute()

    def _run(self, words: list[str], scratch: Path) -> None:
        """Run the program in a group of its own, which ends whole where it takes too long or we are interrupted."""
        with (scratch / "stdout").open("wb") as out, (scratch / "stderr").open("wb") as err:
            process = subprocess.Popen(
                words, cwd=self._folder(), stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
            try:
                status = process.wait(self.recipe.timeout_seconds)
            except subprocess.TimeoutExpired:
                raise ValueError(f"{self.info.name}: not done after {self.recipe.timeout_seconds:g} s, the recipe's "
                                 f"timeout_seconds; {_last_lines(scratch / 'stderr')}") from None  # fmt: skip
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status:
            said = _last_lines(scratch / "stderr")
            raise ValueError(f"{self.info.name}: {words[0]} ended with status {status}; {said}")


def _filled(word: str, values: dict[str, object]) -> str:
    """Put values in the place of their names, once: what a prompt holds is left as it is."""
    return PLACEHOLDER.sub(lambda found: str(values[found[1]]), word)


def _write_silent(path: Path, video: Video, hold_seconds: float) -> Path:
    held = round(Fraction(str(hold_seconds)) * video.fps)
    frames = np.concatenate([video.frames, np.repeat(video.frames[-1:], held, axis=0)])
    silence = np.zeros((1, round(len(frames) / video.fps * SILENT_RATE)), np.float32)
    return write_mp4(path, Clip(frames, silence, video.fps, SILENT_RATE))


def _last_lines(path: Path) -> str:
    """Return what a program said last on standard error."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 10_000, 0))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line.strip()][-STDERR_LINES:]
    return "it said:\n  " + "\n  ".join(lines) if lines else "it said nothing on standard error"


def info_of(recipe: CommandRecipe, source: str, sha256: str | None) -> BackendInfo:
    """Return what a recipe states of its program."""
    shared = {field.name for field in fields(BackendInfo)} & {field.name for field in fields(CommandRecipe)}
    facts = {name: getattr(recipe, name) for name in shared - {"max_seconds"}}
    limit = None if recipe.max_seconds is None else Fraction(str(recipe.max_seconds))
    return BackendInfo(**facts, source=source, sha256=sha256, max_seconds=limit)


def load(source: str, options: LoadOptions) -> CommandVideoToAudio:
    """Read a recipe, YAML or JSON, and look for its program.

    Errors: `ValueError` where it is no recipe, or the program is not installed.
    """
    if not source:
        raise ValueError("command: no recipe is given; write command:FILE, as in command:configs/backends/mmaudio.yaml")
    try:
        recipe = build_recipe(CommandRecipe, read_settings(source), where=source)
    except ValueError as error:
        raise error if str(error).startswith(source) else ValueError(f"{source}: {error}") from error
    backend = CommandVideoToAudio(recipe, info_of(recipe, source, hash_path(Path(source))))
    backend._program()
    return backend

"""What a call is told in words: a prompt for each generation, and how far its modalities are pushed along it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmdiff.checkpoint import TextSource
from mmdiff.diffusion.guidance import classifier_free, twice
from mmdiff.models.text import TextEncoder, TextStates
from mmdiff.pretrained import load_text_encoder

GUIDANCE = 3.0  # where a prompt is given and no scale
Guidance = float | Mapping[str, float] | None
State = dict[str, Tensor]


@dataclass(frozen=True)
class Told:
    """Text for the network, and the scale of every modality.

    Where a scale is not 1 the text is that of twice the clips: their prompts, then what they are pushed away from.
    """

    text: TextStates | None = None
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_guided(self) -> bool:
        """Whether every clip is run with its prompt and without."""
        return any(scale != 1 for scale in self.scales.values())

    def run(self, network: Callable[..., State], state: State, timesteps: State, labels: Tensor | None) -> State:
        """Return what `network(state, timesteps, **options)` says of the prompts, guided; it is called once."""
        options = {} if self.text is None else {"text": self.text}
        if not self.is_guided:
            return network(state, timesteps, **options | ({} if labels is None else {"labels": labels}))
        if labels is not None:
            options["labels"] = torch.cat([labels, labels])
        return classifier_free(network(twice(state), twice(timesteps), **options), self.scales, state)


def check_prompts(
    prompt: str | Sequence[str] | None, negative_prompt: str | Sequence[str] | None, count: int | None
) -> tuple[list[str] | None, list[str] | None, int | None]:
    """Return both as lists, one for each generation, and the number of generations: as many as there are prompts.

    Errors: `ValueError` where one is empty, their numbers differ, or there is no prompt to be pushed away from.
    """
    prompts, negatives = (_listed(name, value) for name, value in (("prompt", prompt),
                                                                   ("negative_prompt", negative_prompt)))  # fmt: skip
    if negatives is not None and prompts is None:
        raise ValueError("negative_prompt: no prompt is given; guidance needs both ends of its way")
    if count is None and prompts is not None and len(prompts) > 1:
        count = len(prompts)
    return prompts, negatives, count


def tell_prompts(
    encoder: Callable[[], TextEncoder], prompts: list[str] | None, negatives: list[str] | None, guidance: Guidance,
    names: tuple[str, ...], count: int, device: torch.device,
) -> Told:  # fmt: skip
    """Return what the network is told of `count` clips; `encoder` is asked for only where there is text.

    Errors: `ValueError` where the number of prompts or a scale cannot be.
    """
    if prompts is None:
        if guidance is not None:
            raise ValueError(f"guidance is {guidance}, and no prompt is given; give a prompt, or leave it out")
        return Told(scales=dict.fromkeys(names, 1.0))
    scales = scales_of(guidance, names)
    is_guided = any(scale != 1 for scale in scales.values())
    if negatives is not None and not is_guided:
        raise ValueError("negative_prompt: without guidance (a scale of 1) it is never seen; raise the scale")
    wanted = [_repeated("prompt", prompts, count)]
    wanted += [] if negatives is None else [_repeated("negative_prompt", negatives, count)]
    text = encoder().encode([caption for captions in wanted for caption in captions]).to(device)
    if is_guided and negatives is None:
        text = TextStates(*(torch.cat([x, torch.zeros_like(x)]) for x in (text.values, text.mask)))
    return Told(text, scales)


def load_encoder(source: TextSource | None, device: torch.device) -> TextEncoder:
    """Return the text encoder that a model was trained with.

    Errors: `ValueError` where it was trained with none, or what lies here by that name has other weights.
    """
    if source is None:
        raise ValueError("prompt: this model was trained without text; leave the prompt out, or train one by a recipe "
                         "that has a section `text`")  # fmt: skip
    encoder = load_text_encoder(source.encoder, device)
    if encoder.sha256 != source.sha256:
        raise ValueError(f"text encoder {source.encoder}: the weights here are of SHA-256 {encoder.sha256[:12]}, those "
                         f"the model was trained with of {source.sha256[:12]}; install the latter")  # fmt: skip
    return encoder


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: one a line, or of JSON lines (.jsonl) their "prompt".

    Errors: `ValueError` that names the file and line where there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no readable file of prompts ({error}); write one prompt a line") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        if path.suffix == ".jsonl" and line.strip():
            line = _prompt_of(line, f"{path}:{number}")
        if line.strip():
            prompts.append(line.strip())
    if not prompts:
        raise ValueError(f"{path}: holds no prompts; write one a line")
    return prompts


def parse_guidance(text: str | None) -> Guidance:
    """Return the scales that a command line gives: "3", or "video=3,audio=2".

    Errors: `ValueError` where it is neither.
    """
    try:
        if text is None or "=" not in text:
            return None if text is None else float(text)
        return {name.strip(): float(scale) for name, scale in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise ValueError(f"--text-guidance is {text!r}; write a number, or video=3,audio=2") from error


def _prompt_of(line: str, where: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
        if isinstance(prompt, str):
            return prompt
    except (json.JSONDecodeError, KeyError, TypeError):
        pass
    raise ValueError(f'{where}: not a line such as {{"prompt": "a ball on wood"}}')


def _listed(name: str, value: str | Sequence[str] | None) -> list[str] | None:
    listed = None if value is None else [value] if isinstance(value, str) else list(value)
    if listed is not None and not (listed and all(isinstance(text, str) and text.strip() for text in listed)):
        raise ValueError(f"{name} is {value!r}; give text, or a list of texts, none of them empty")
    return listed


def _repeated(name: str, texts: list[str], count: int) -> list[str]:
    if len(texts) not in (1, count):
        raise ValueError(f"{name}: {len(texts)} texts are given for {count} generations; give one, or one for each")
    return texts * count if len(texts) == 1 else texts


def scales_of(guidance: Guidance, names: tuple[str, ...]) -> dict[str, float]:
    """Return the scale of every modality.

    Errors: `ValueError` where one cannot be, or is for a modality that there is not.
    """
    guidance = GUIDANCE if guidance is None else guidance
    scales = dict(guidance) if isinstance(guidance, Mapping) else dict.fromkeys(names, guidance)
    if set(scales) - set(names) or not all(isinstance(x, int | float) and 0 <= x < math.inf for x in scales.values()):
        raise ValueError(f"guidance is {guidance}; give a number of at least 0, or one for each of {', '.join(names)}")
    return {name: float(scales.get(name, GUIDANCE)) for name in names}

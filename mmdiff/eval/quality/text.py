"""Does a generation follow its prompt? Cosines of text and picture, and of text and sound."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmdiff.eval.features.base import Extractor
from mmdiff.eval.quality.columns import Column
from mmdiff.eval.quality.estimate import ratio
from mmdiff.eval.quality.sets import Row

SCORES = {
    "clip": ("CLIP cosine", "cosine of frames and prompt, mean over frames, then clips; not times 100, not clamped"),
    "clap": ("CLAP-T", "cosine of the sound with its own prompt, averaged over clips"),
}  # fmt: skip


def read_prompts(path: Path | None) -> dict[str, str]:
    """Read prompts by file name from JSON lines `{"file": "00000.mp4", "prompt": "..."}`; none where there is no file.

    Errors: `ValueError` that names the file and the line.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise ValueError(f"{path}: no such file of prompts; give JSON lines with file and prompt (--prompts)")
    prompts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            prompts[Path(entry["file"]).name] = str(entry["prompt"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f'{path}:{number}: write {{"file": "00000.mp4", "prompt": "..."}} ({error})') from error
    return prompts


def text_rows(
    extractors: Mapping[str, Extractor], columns: Sequence[Column], prompts: Mapping[str, str], seed: int
) -> Iterator[Row]:
    """Yield the agreement of every column's clips with their prompts, by the extractors that know text."""
    for key, (metric, how) in SCORES.items():
        extractor = extractors.get(key)
        for column in columns if extractor is not None and prompts else ():
            told = [
                (reading.arrays[extractor.name]["embedding"], prompts[reading.item.picture.path.name])
                for reading in column.readings
                if extractor.name in reading.arrays and reading.item.picture.path.name in prompts
            ]
            if told:
                texts = extractor.embed_text([prompt for _, prompt in told])
                parts = [(_cosine(array, text), 1.0) for (array, _), text in zip(told, texts)]
                estimate = ratio(parts, [(i,) for i in range(len(parts))], len(parts), seed)
                yield Row(metric, extractor.name, "text", "higher", column.name, column.kind, estimate, how)


def _cosine(array: np.ndarray, text: np.ndarray) -> float:
    array, text = np.asarray(array, np.float64), np.asarray(text, np.float64)
    return float((array @ text / (np.linalg.norm(array, axis=1) * np.linalg.norm(text))).mean())

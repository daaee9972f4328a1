"""Do generations show and sound what their prompts name (the strikes benchmark), and how long did they take?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdiff.data.manifest import MANIFEST_NAME, read_manifest
from mmdiff.data.strikes import facts_of, read_prompt
from mmdiff.eval import prompts, strikes
from mmdiff.eval.quality.agreement import shuffles
from mmdiff.eval.quality.columns import Column
from mmdiff.eval.quality.estimate import ratio
from mmdiff.eval.quality.pairs import read_record
from mmdiff.eval.quality.sets import Row
from mmdiff.eval.windows import evenly
from mmdiff.media import read_clip

if TYPE_CHECKING:
    from mmdiff.eval.quality.run import Study

READER = "strikes-reader"
HOW = "share of clips whose {} is as the prompt says, read by classifiers trained on real clips; shuffled: other ones"


def fact_rows(study: "Study", real: Column, made: Sequence[Column]) -> Iterator[Row]:
    """Yield for every fact that prompts name how often it is there, with exchanged prompts as the control.

    Nothing where the reference is no strikes benchmark, or no record beside a generation has such a prompt.
    """
    asked = {column.name: _asked(column) for column in made if not column.given}
    reference, seed = study.request.reference, study.request.seed
    if not any(asked.values()) or not is_benchmark(reference):
        return
    training = evenly(prompts.find_real(reference, "train"), prompts.NUM_TRAINING)
    reader = strikes.train_reader((read_clip(one.path, study.spec) for one in training),
                                  [one.said for one in training], seed=seed)  # fmt: skip
    groups = [(name, "generated", found) for name, found in asked.items() if found]
    held_out = evenly(prompts.find_real(reference, study.request.split), len(real.readings))
    answered = []
    for name, kind, group in [*groups, (real.name, real.kind, held_out)]:
        answered.append((name, kind, prompts.answer(name, group, reader, study.spec, lost := [])))
        study.rejected += [{"row": name, "by": READER, **item} for item in lost]
    for question in (*strikes.FACT_OF, prompts.TOGETHER):
        for column in answered:
            yield from _rows(question, *column, seed)


def is_benchmark(folder: Path) -> bool:
    """Say whether every clip of a data set has the facts of the strikes benchmark."""
    if not (folder / MANIFEST_NAME).is_file():
        return False
    try:
        return all(map(facts_of, read_manifest(folder)))
    except ValueError:
        return False


def cost_rows(made: Sequence[Column], seed: int) -> Iterator[Row]:
    """Yield the seconds that a clip took to make, of columns whose records all say it; loading models is not in it."""
    how = "seconds from prompt to clip, models loaded, one clip at a time, as the records beside the files say"
    for column in made:
        spent = [read_record(reading.item.picture.path).get("elapsed_seconds") for reading in column.readings]
        if spent and all(map(_is_cost, spent)):
            parts = [(one["video"] + one["audio"], 1.0) for one in spent]
            estimate = ratio(parts, [(i,) for i in range(len(parts))], len(parts), seed)
            yield Row("seconds a clip", "record", "cost", "lower", column.name, column.kind, estimate, how)


def _is_cost(spent: Any) -> bool:
    """Say whether a stranger's record tells the seconds of both stages."""
    return isinstance(spent, dict) and all(isinstance(spent.get(name), int | float) for name in ("video", "audio"))


def _asked(column: Column) -> list[prompts.Asked]:
    paths = [reading.item.picture.path for reading in column.readings]
    said = [(path, prompt, read_prompt(prompt)) for path, prompt in zip(paths, map(prompts.read_record, paths))]
    return [prompts.Asked(*one) for one in said if one[2]]


def _rows(question: str, name: str, kind: str, answered: Sequence[prompts.Answered], seed: int) -> Iterator[Row]:
    said, found = prompts.compare(question, answered)
    pairs = {name: [(i, i) for i in range(len(said))]}
    if len(said) > 1:
        pairs[f"{name}, shuffled"] = shuffles(len(said), seed)
    for of, chosen in pairs.items():
        parts = [(float(found[answer] == said[prompt]), 1.0) for answer, prompt in chosen]
        drawn = [tuple(np.unique(pair).tolist()) if of == name else pair for pair in chosen]
        estimate = ratio(parts, drawn, len(said), seed)
        yield Row(f"prompt: {question}", READER, "text", "higher", of, kind if of == name else "shuffled", estimate,
                  HOW.format(question))  # fmt: skip

"""`mmdiff evaluate` and what comes after it."""

import argparse
from pathlib import Path

from mmdiff.commands.base import add_command

# Each after `evaluate`, as one command of two words; else a folder is there.
EVALUATIONS = ("sync", "drift", "prompts", "concept")


def add_evaluate(commands) -> None:
    """Add `evaluate`, and `evaluate NAME` for every name."""
    parser = add_command(
        commands, "evaluate",
        "how good are pictures, sounds and their agreement? with intervals, controls and a protocol",
        "mmdiff evaluate out/clips out/generations -o out/evaluation\n"
        "  mmdiff evaluate out/clips out/mine out/theirs --weights i3d=i3d_pretrained_400.pt\n\n"
        "also: mmdiff evaluate sync REF GEN ... (offsets in ms and F1; see its --help)\n"
        "      mmdiff evaluate drift REF GEN ... (do long clips change from beginning to end?)\n"
        "      mmdiff evaluate prompts REF GEN ... (colour, kind, material and count that prompts name)\n"
        "      mmdiff evaluate concept CONCEPT GEN ... (how well was a concept learnt?)", _evaluate,
    )  # fmt: skip
    parser.add_argument("reference", type=Path, help="real clips: a data set folder or a folder of MP4 files")
    parser.add_argument("generations", type=Path, nargs="+", help="folders of generated MP4 files, one a system")
    parser.add_argument("-o", "--output", type=Path, help="folder for evaluation.json and evaluation.html")
    parser.add_argument(
        "--preset", default="mmdiff", metavar="NAME",
        help="protocol: mmdiff (default), mm-diffusion-landscape, mm-diffusion-aist, javisbench, av-benchmark or music",
    )  # fmt: skip
    parser.add_argument(
        "--weights", action="append", default=[], metavar="NAME=PATH",
        help="weights of an extractor, a file, folder or hub id: i3d, i3d-direct, inception, clip, vggish, pann, clap, "
        "imagebind, synchformer or audioclip; may be repeated",
    )  # fmt: skip
    parser.add_argument("--split", help="split of a data set folder (default: the protocol's, mostly test)")
    parser.add_argument("-n", "--num-clips", type=int, help="most clips of each folder (default: the protocol's, 2048)")
    parser.add_argument(
        "--training", type=Path, metavar="FOLDER",
        help="data set the model was trained on (default: the training split of REF, where it has one)",
    )  # fmt: skip
    parser.add_argument(
        "--num-training", type=int, default=512,
        help="training clips that copies are looked for in; 0 for none (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--prompts", type=Path, metavar="FILE", help='JSON lines {"file": ..., "prompt": ...}')
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where features are kept (default: user cache)")
    parser.add_argument("--device", default=None, help="cpu, cuda ... (default: a GPU where there is one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="print the protocol and what is missing, and stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_evaluate_sync(commands)
    _add_evaluate_drift(commands)
    _add_evaluate_prompts(commands)
    _add_evaluate_concept(commands)


def _add_evaluation(commands, name: str, handler, *, question: str, example: str, written: str, reference: str,
                    generations: str = "folders of generated MP4 files") -> argparse.ArgumentParser:  # fmt: skip
    """Add `evaluate NAME REF GEN ...`, with what all such commands take."""
    parser = add_command(commands, f"evaluate {name}", question, f"mmdiff evaluate {name} {example}", handler)
    parser.add_argument("reference", type=Path, help=reference)
    parser.add_argument("generations", type=Path, nargs="+", help=generations)
    parser.add_argument("-o", "--output", type=Path, help=f"folder for {written}")
    parser.add_argument("--split", default="test", help="split of a data set folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_evaluate_sync(commands) -> None:
    _add_evaluation(
        commands, "sync", _evaluate_sync, written="sync.json and report.html",
        question="do sound and picture agree? offsets in ms and F1, with intervals",
        example="out/demo/clips out/generations -o out/sync",
        reference="real pairs: a data set folder or a folder of MP4 files",
    )  # fmt: skip


def _add_evaluate_drift(commands) -> None:
    parser = _add_evaluation(
        commands, "drift", _evaluate_drift, written="drift.json",
        question="do long clips change from their first seconds to their last? with intervals",
        example="out/clips out/long -o out/drift",
        reference="real clips as long: a data set folder or a folder of MP4 files",
    )  # fmt: skip
    parser.add_argument("--part", default="1.6", help="seconds that are measured at a time (default: %(default)s)")


def _add_evaluate_prompts(commands) -> None:
    _add_evaluation(
        commands, "prompts", _evaluate_prompts, written="prompts.json",
        question="do generations show and sound what their prompts say? shares beside chance",
        example="data/strikes out/generations -o out/prompts",
        reference="a set of `mmdiff-data synthesize strikes`",
        generations='folders of MP4 files, each with a JSON beside it that has "prompt"',
    )  # fmt: skip


def _add_evaluate_concept(commands) -> None:
    parser = add_command(
        commands, "evaluate concept", "how well was a concept learnt, and are prompts still followed? with intervals",
        "mmdiff evaluate concept photos/dog out/lora out/dreambooth -o out/concept --weights clip=clip-vit-base",
        _evaluate_concept,
    )  # fmt: skip
    parser.add_argument("concept", type=Path, help="the concept's photos or clips of music: what training read")
    parser.add_argument(
        "generations", type=Path, nargs="+", help="folders that `mmdiff personalize sample` filled, one a system"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for concept.json and concept.html")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="NAME=PATH",
        help="weights of an extractor, a file, folder or hub id: clip and inception for images; clap, vggish and pann "
        "for music; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--reference", type=Path, metavar="FOLDER",
        help="what FID or FAD is measured to, such as held-out photos (default: the concept)",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where features are kept (default: user cache)")
    parser.add_argument("--device", default=None, help="cpu, cuda ... (default: a GPU where there is one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="print the protocol and what is missing, and stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _evaluate(options: argparse.Namespace) -> int:
    from mmdiff.eval.quality.run import run_evaluation

    return run_evaluation(options)


def _evaluate_drift(options: argparse.Namespace) -> int:
    from mmdiff.eval.drift import run_drift

    return run_drift(options)


def _evaluate_sync(options: argparse.Namespace) -> int:
    from mmdiff.eval.suite import run_sync

    return run_sync(options)


def _evaluate_prompts(options: argparse.Namespace) -> int:
    from mmdiff.eval.prompts import run_prompts

    return run_prompts(options)


def _evaluate_concept(options: argparse.Namespace) -> int:
    from mmdiff.eval.concept.run import run_concept

    return run_concept(options)

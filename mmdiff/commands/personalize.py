"""`mmdiff personalize`."""

import argparse
from pathlib import Path

from mmdiff.commands.base import add_command


def add_personalize(commands) -> None:
    """Add `personalize NAME`."""
    parser = commands.add_parser("personalize", help="use models that were taught a concept",
                                 description="Use models that were taught a concept.")  # fmt: skip
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    sample = add_command(
        kinds, "sample", "make images or music with a personalized model (`mmdiff train configs/personalize/...`)",
        'mmdiff personalize sample runs/dog/export --prompt "a photo of sks dog on a beach" -o out/dog -n 4\n'
        "  mmdiff personalize sample runs/dog/export --prompts reconstruction editability -o out/dog-sets",
        _personalize_sample,
    )  # fmt: skip
    sample.add_argument("model", help="folder export/ of a training run; or a plain model, by folder or hub id")
    sample.add_argument("--prompt", metavar="TEXT", help="what to make")
    sample.add_argument("--prompts", nargs="+", default=[], metavar="NAME|FILE",
                        help="reconstruction, editability, or a text file with a prompt a line, {} for the concept; "
                             "goes on where it stopped")  # fmt: skip
    sample.add_argument("--concept", metavar="WORDS", help="what stands for {} (default: what the model learned)")
    sample.add_argument("-o", "--output", type=Path, required=True, help="folder to write; nothing in it is replaced")
    sample.add_argument("-n", "--num-generations", type=int, default=4, help="files a prompt (default: %(default)s)")
    sample.add_argument("--seed", type=int, default=0, help="of the first file; every further one has 1 more")
    sample.add_argument("--guidance-scale", type=float, metavar="W", help="push towards the prompt")
    sample.add_argument("--base-model", dest="base", metavar="ID", help="where the model it was trained on lies now")
    sample.add_argument("--device", default=None, help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    sample.add_argument("--json", action="store_true", help="print the result as JSON")
    images = sample.add_argument_group("images")
    images.add_argument("--negative-prompt", metavar="TEXT", help="what is not to be seen")
    images.add_argument("--steps", type=int, help="sampling steps (default: the base model's)")
    images.add_argument("--size", metavar="WxH", help="pixels (default: those of training)")
    images.add_argument("--lora-scale", type=float, metavar="W", help="how strongly a LoRA acts (default: 1)")
    images.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: bfloat16 on a GPU")
    images.add_argument("--offload", choices=("none", "model", "sequential"), default="none",
                        help="keep resting parts of large models off the GPU (default: %(default)s)")  # fmt: skip
    music = sample.add_argument_group("music")
    music.add_argument("--seconds", type=float, help="duration (default: 10, or that of --audio)")
    music.add_argument("--audio", type=Path, metavar="FILE", help="tell this sound anew with the prompt")
    music.add_argument("--strength", type=float, metavar="W",
                       help="of --audio: 0 leaves it as it is, 1 leaves nothing of it (default: 0.5)")  # fmt: skip
    music.add_argument("--top-k", type=int, help="of how many codes each is drawn (default: 250)")
    music.add_argument("--temperature", type=float, help="how evenly they are drawn (default: 1)")
    _add_sweep(kinds)


def _add_sweep(kinds) -> None:
    sweep = add_command(
        kinds, "sweep", "train recipes that differ, ask all for the same prompts and seeds, and compare them",
        "mmdiff personalize sweep configs/personalize/sweeps/celebration.yaml instance_data_dir=photos "
        "weights.clip=openai/clip-vit-base-patch32 weights.inception=inception.pth -o out/celebration",
        _personalize_sweep,
    )  # fmt: skip
    sweep.add_argument("sweep", type=Path, help="what to compare (YAML)")
    sweep.add_argument("overrides", nargs="*", metavar="key=value",
                       help="settings of the sweep, of one row (rows.NAME.key=value), or of all rows")  # fmt: skip
    sweep.add_argument("-o", "--output", type=Path, required=True, help="folder; the same command goes on in it")
    sweep.add_argument("--only", nargs="+", default=[], metavar="ROW", help="run these rows alone")
    sweep.add_argument("--device", default=None, help="cpu, cuda ... of generations and measures (default: a GPU)")
    sweep.add_argument("--dry-run", action="store_true", help="check all rows, print their commands, and stop")
    sweep.add_argument("--json", action="store_true", help="print the result as JSON")


def _personalize_sample(options: argparse.Namespace) -> int:
    from mmdiff.personalize.sample import run_personalized_sampling

    return run_personalized_sampling(options)


def _personalize_sweep(options: argparse.Namespace) -> int:
    from mmdiff.personalize.sweep import run_sweep

    return run_sweep(options)

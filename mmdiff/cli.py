"""The `mmdiff` command. Parsers only: every handler imports what it needs when it is called."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdiff.commands.base import add_command
from mmdiff.commands.evaluate import EVALUATIONS, add_evaluate
from mmdiff.commands.personalize import add_personalize

RELEASED_MODEL = "checkpoints/impacts"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 only on success."""
    options = parse(arguments)
    try:
        return options.handler(options) or 0
    except (ValueError, FileExistsError, FileNotFoundError) as error:
        print(f"mmdiff {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line; recipe overrides may also follow a flag (`--dry-run key=value`)."""
    parser = build_parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["evaluate"] and words[1:2] and words[1] in EVALUATIONS:
        words[:2] = [" ".join(words[:2])]
    options, rest = parser.parse_known_args(words)
    takes_overrides = hasattr(options, "overrides")
    if takes_overrides and not any(word.startswith("-") for word in rest):
        options.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="mmdiff", description="Joint audio-video diffusion with sync that is proved.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_sample(commands)
    _add_generate(commands)
    add_evaluate(commands)
    _add_codec(commands)
    _add_convert(commands)
    add_personalize(commands)
    return parser


def _add_demo(commands) -> None:
    parser = add_command(
        commands,
        "demo",
        "make clips, train a little, sample, measure, and write report.html",
        "mmdiff demo -o out/demo",
        _demo,
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out/demo"), help="folder (default: %(default)s)")
    parser.add_argument("--model", default=RELEASED_MODEL, help="model folder (default: %(default)s)")
    parser.add_argument("-n", "--num-generations", type=int, default=48, help="each way (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def _add_train(commands) -> None:
    parser = add_command(
        commands,
        "train",
        "train what a recipe describes; resumes by itself where it stopped",
        "mmdiff train configs/tiny/joint.yaml train.max_steps=100",
        _train,
    )
    parser.add_argument("config", type=Path, help="recipe (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe, check the data, and stop")


def _add_sample(commands) -> None:
    parser = add_command(
        commands,
        "sample",
        "write MP4 files from a trained model",
        f"mmdiff sample {RELEASED_MODEL} -n 8 -o out/generations",
        _sample,
    )
    parser.add_argument("model", help="folder that training exported")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write; nothing in it is replaced")
    parser.add_argument("-n", "--num-generations", type=int, help="MP4 files (default: 8, or one for each prompt)")
    _add_prompt(parser)
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default: %(default)s)")
    parser.add_argument(
        "--sampler", metavar="NAME",
        choices=("ddim", "ddpm", "dpm++", "dpm", "mm-ddim", "mm-ddpm", "mm-dpm", "mm-dpm++", "euler"),
        help="ddim, ddpm, dpm++ or dpm; mm-ddim, mm-ddpm, mm-dpm or mm-dpm++ repeat MM-Diffusion's; euler is flow "
        "matching's (default: ddim, or euler for a model that flow matching trained)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=8, help="generations at a time (default: %(default)s)")
    parser.add_argument("--num-frames", type=int, help="another length than the model was trained on")
    parser.add_argument(
        "--overlap", metavar="SECONDS",
        help="with --num-frames: make a long clip in windows of the model's own length, each of which goes on from the "
             "last SECONDS of the one before",
    )  # fmt: skip
    parser.add_argument("--label", type=int, help="class, for a model that has them")
    parser.add_argument("--upsampler", metavar="FOLDER", help="super-resolution model that enlarges the picture")
    parser.add_argument("--upsampler-steps", type=int, default=25, help="its steps (default: %(default)s)")
    _add_given(parser)
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_generate(commands) -> None:
    parser = add_command(
        commands, "generate", "text -> video -> audio: an MP4 whose sound is made for its picture and the text",
        'mmdiff generate "a red ball bounces twice on wood" -o out.mp4 --video-model Wan-AI/Wan2.1-T2V-1.3B-Diffusers '
        "--audio-model command:configs/backends/mmaudio.yaml\n"
        "  mmdiff generate --prompts prompts.txt -o out/clips --video-model Lightricks/LTX-2 --audio native",
        _generate,
    )  # fmt: skip
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what is to be seen and heard")
    parser.add_argument("--prompts", type=Path, metavar="FILE",
                        help="one prompt a line, or .jsonl; goes on where it stopped")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, help="MP4 file, or folder; nothing is replaced")
    parser.add_argument("--video-model", metavar="ID", help="hub id (owner/name@revision), folder, or NAME:ARGUMENT")
    parser.add_argument("--audio-model", metavar="ID", help="the same, or command:FILE, or silence")
    parser.add_argument("--audio", choices=("generated", "native", "mix"), default="generated",
                        help="the audio model's sound, the video's own, or both (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seconds", help="duration (default: the video model's)")
    parser.add_argument("--fps", help="frames a second, where the video model can be told (default: its own)")
    parser.add_argument("--size", metavar="WxH", help="pixels (default: the video model's)")
    parser.add_argument("--sample-rate", type=int, metavar="HZ", help="of the sound (default: the audio model's)")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what is not to be seen and heard")
    for stage, name in (("", "video"), ("audio-", "audio")):
        parser.add_argument(f"--{stage}steps", type=int, help=f"of the {name} model (default: its own)")
        parser.add_argument(f"--{stage}guidance-scale", type=float, metavar="W", help=f"of the {name} model")
    parser.add_argument("--overlap", default="1", metavar="SECONDS",
                        help="of the windows in which long sound is made (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt; prompt i has i more")
    parser.add_argument("--lora", action="append", default=[], metavar="ID", help="of the video model; may be repeated")
    parser.add_argument("--offload", choices=("none", "model", "sequential"), default="none",
                        help="keep resting parts of large models off the GPU (default: %(default)s)")  # fmt: skip
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: bfloat16 on a GPU")
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be made, and stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_prompt(parser) -> None:
    words = parser.add_argument_group("words", "For a model that was trained with text.")
    words.add_argument("--prompt", metavar="TEXT", help="what to make")
    words.add_argument("--prompts", type=Path, metavar="FILE",
                       help='one a line, or JSON lines {"prompt": ...}; generation i takes the i-th, then from the '
                            "first again")  # fmt: skip
    words.add_argument("--negative-prompt", metavar="TEXT", help="what to be pushed away from (default: no text)")
    words.add_argument("--text-guidance", metavar="W",
                       help="how far to push towards the prompt: a number, or video=3,audio=2; 1 is no push "
                            "(default: 3)")  # fmt: skip


def _add_given(parser) -> None:
    given = parser.add_argument_group("what is given", "With a picture its sound is made, with a sound its picture; "
                                      "with both, what --keep and --regenerate leave out.")  # fmt: skip
    given.add_argument("--video", type=Path, help="video file or data set folder that gives the picture")
    given.add_argument("--audio", type=Path, help="sound file or data set folder that gives the sound")
    given.add_argument("--start", default="0", help="where in the file to start, in seconds (default: %(default)s)")
    given.add_argument("--split", default="test", help="split of a data set folder (default: %(default)s)")
    given.add_argument("--keep", metavar="SECONDS", help="keep only so much of it, and generate how it goes on")
    given.add_argument("--regenerate", action="append", default=[], metavar="audio=0.4:0.8",
                       help="make a span of seconds again, of video or audio; may be repeated")  # fmt: skip
    given.add_argument(
        "--conditioning", choices=("native", "replacement", "gradient", "mm-diffusion"),
        help="how the model is told (default: native where it was trained for it, else replacement)",
    )  # fmt: skip
    given.add_argument("--guidance-scale", type=float, metavar="W", help="pull towards what is given, by gradient")


def _add_codec(commands) -> None:
    parser = commands.add_parser("codec", help="what codecs alone do to clips", description="What codecs do to clips.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    report = add_command(
        kinds,
        "report",
        "what encoding and decoding alone do to picture, sound and their agreement, with intervals",
        f"mmdiff codec report {RELEASED_MODEL} out/clips -o out/codec --generations out/generations",
        _codec_report,
    )
    report.add_argument("model", type=Path, help="model folder, or a folder of codecs that training exported")
    report.add_argument("media", type=Path, help="real clips: a data set folder or a folder of MP4 files")
    report.add_argument("-o", "--output", type=Path, help="folder for codec.json and codec.html")
    report.add_argument(
        "--generations", type=Path, action="append", default=[], metavar="FOLDER",
        help="generated MP4 files, to see what generation adds to what the codecs do; may be repeated",
    )  # fmt: skip
    report.add_argument("--split", default="test", help="split of a data set folder (default: %(default)s)")
    report.add_argument("-n", "--num-clips", type=int, default=200, help="most clips (default: %(default)s)")
    report.add_argument("--device", default=None, help="cpu, cuda ... (default: a GPU where there is one)")
    report.add_argument("--seed", type=int, default=0)
    report.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_convert(commands) -> None:
    parser = commands.add_parser("convert", help="read and write the checkpoints of others",
                                 description="Read and write the checkpoints of others.")  # fmt: skip
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    published = add_command(
        kinds,
        "mm-diffusion",
        "published MM-Diffusion and ADM upsampler checkpoints into model folders, and back",
        "mmdiff convert mm-diffusion Landscape.pt checkpoints/landscape",
        _convert,
    )
    published.add_argument("source", type=Path, help="a file (Landscape.pt, AIST++.pt, ...), or a model folder")
    published.add_argument("output", type=Path, help="the model folder to write, or the file (.pt or .safetensors)")
    published.add_argument(
        "overrides", nargs="*", metavar="key=value",
        help="settings that leave no trace in the tensors, such as model.num_heads=4, clip.num_frames=16 or "
        "model.cross_attention_windows=[1,4,8]; the published ones where nothing is said",
    )  # fmt: skip
    music = add_command(
        kinds,
        "audiocraft",
        "a MusicGen of audiocraft into a folder that is trained here, and an export of training back",
        "mmdiff convert audiocraft their/export checkpoints/ours base=facebook/musicgen-small",
        _convert_audiocraft,
    )
    music.add_argument("source", help="state_dict.bin, or a folder or hub id with one; or a MusicGen of transformers, "
                       "or the folder export/ of a training run, to write in audiocraft's form")  # fmt: skip
    music.add_argument("output", type=Path, help="the folder to write")
    music.add_argument(
        "overrides", nargs="*", metavar="base=ID_OR_FOLDER",
        help="a MusicGen of transformers with the same T5 and codec, which audiocraft's file does not hold (from an "
        "adapter: where the model it was trained on lies now); text_encoder=t5-base names the T5 for audiocraft "
        "where its sizes do not tell",
    )  # fmt: skip


def _demo(options: argparse.Namespace) -> int:
    from mmdiff.demo import run_demo

    return run_demo(options)


def _train(options: argparse.Namespace) -> int:
    from mmdiff.recipes import build_task, load_recipe

    recipe = load_recipe(options.config, options.overrides)
    from mmdiff.train.trainer import run_training

    return run_training(recipe, build_task, dry_run=options.dry_run)


def _sample(options: argparse.Namespace) -> int:
    from mmdiff.pipelines.generate import run_sampling

    return run_sampling(options)


def _generate(options: argparse.Namespace) -> int:
    from mmdiff.pipelines.two_stage.run import run_generate

    return run_generate(options)


def _codec_report(options: argparse.Namespace) -> int:
    from mmdiff.eval.codec_report import run_codec_report

    return run_codec_report(options)


def _convert(options: argparse.Namespace) -> int:
    from mmdiff.convert.run import run_convert

    return run_convert(options)


def _convert_audiocraft(options: argparse.Namespace) -> int:
    from mmdiff.personalize.musicgen.audiocraft import run_convert_audiocraft

    return run_convert_audiocraft(options)


if __name__ == "__main__":
    sys.exit(main())

"""The commands that add words, latents and recordings: caption, encode, download. Parsers only, as in `cli`."""

import argparse
import json
from pathlib import Path


def add_caption_commands(commands) -> None:
    """Add the commands of this file to the parser of `mmdiff-data`."""
    _add_caption(commands)
    _add_encode(commands)
    _add_download(commands)


def _add_caption(commands) -> None:
    parser = commands.add_parser(
        "caption",
        help="give every clip a caption: from files beside it, its events, or a model",
        description="Give every clip a caption, in place or in a copy of the set whose clips are linked.\n\n"
        "  sidecar    x.txt, or the field caption or text of x.json, beside x.mp4 or in --sidecars\n"
        "  benchmark  the set's own captions; where there is none, a sentence on its events\n"
        "  MODEL      an image-to-text or vision-language model of transformers, by hub id or folder;\n"
        "             safetensors only, no code of the model's is run (pip install 'mmdiff[caption]')",
        epilog="examples:\n  mmdiff-data caption data/impacts --captioner benchmark --dry-run\n"
        "  mmdiff-data caption data/concerts --captioner Salesforce/blip-image-captioning-large -o data/captioned",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_caption)
    parser.add_argument("input", type=Path, metavar="IN", help="folder of the set")
    parser.add_argument("--captioner", required=True, metavar="sidecar|benchmark|MODEL", help="who says it")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder of the copy (default: in place)")
    parser.add_argument("--sidecars", type=Path, metavar="DIR", help="where to look for texts, before the set itself")
    parser.add_argument("--frames", type=int, default=4, metavar="N", help="that a model sees (default: %(default)s)")
    parser.add_argument("--prompt", default="", help="what a vision-language model is asked (default: one sentence)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="pass over clips that have a caption")
    _add_common(parser)


def _add_encode(commands) -> None:
    parser = commands.add_parser(
        "encode",
        help="write every clip's latents, and its caption's embedding",
        description="Write every clip's latents, as a model's codecs make them, and the captions' embeddings.\n"
        "Files are named by the hash of clip and weights: what is there is passed over. OUT gets index.jsonl.",
        epilog="examples:\n  mmdiff-data encode data/concerts data/latents --codecs runs/joint/model\n"
        "  mmdiff-data encode data/concerts data/latents --codecs runs/joint/model --text-model google/t5-v1_1-base "
        "--dtype float16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_encode)
    parser.add_argument("input", type=Path, metavar="IN", help="folder of the set")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--codecs", type=Path, required=True, metavar="FOLDER", help="a joint model's folder")
    parser.add_argument("--text-model", default="", metavar="ID", help="text encoder of transformers: hub id or folder")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    _add_common(parser)


def _add_download(commands) -> None:
    parser = commands.add_parser(
        "download",
        help="fetch recordings by yt-dlp, with licence and origin noted beside each",
        description="Fetch the recordings of a list: on each line an id of YouTube or an http(s) address, then, if\n"
        "known, the licence. Beside each file x.mp4, x.json tells url, licence and title; `cut` reads it.\n"
        "Needs pip install 'mmdiff[download]', and ffmpeg to join picture and sound. Mind the sites' terms.",
        epilog="example:\n  mmdiff-data download concerts.txt recordings --max-height 720 --dry-run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_download)
    parser.add_argument("list", type=Path, metavar="LIST", help="text file, one recording a line")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--max-height", type=int, metavar="LINES", help="of the picture (default: the best there is)")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _caption(options: argparse.Namespace) -> int:
    from data_tools.caption import BenchmarkCaptioner, SidecarCaptioner, caption_set

    _check_device(options.device)
    if options.frames < 1:
        raise ValueError(f"--frames is {options.frames}; give at least 1")
    if options.captioner == "sidecar":
        if options.sidecars and not options.sidecars.is_dir():
            raise ValueError(f"--sidecars {options.sidecars}: no such folder")
        captioner = SidecarCaptioner([place for place in (options.sidecars, options.input) if place])
    elif options.captioner == "benchmark":
        captioner = BenchmarkCaptioner()
    else:
        from data_tools.caption_model import PROMPT, ModelCaptioner

        prompt = options.prompt or PROMPT
        captioner = ModelCaptioner(options.captioner, num_frames=options.frames, prompt=prompt, device=options.device)
    told = caption_set(options.input, captioner, options.output, keep=options.keep, dry_run=options.dry_run)
    would = "would caption" if options.dry_run else "captioned"
    return _report(options, told, f"{would} {told['captioned']} of {told['clips']} clips ({told['captioner']}); "
                   f"{told['kept']} keep theirs, {told['without']} have none: {told['output']}")  # fmt: skip


def _encode(options: argparse.Namespace) -> int:
    from data_tools.encode import encode_set, load_codecs

    _check_device(options.device)
    codecs = load_codecs(options.codecs, options.device)
    encoder = None
    if options.text_model:
        from data_tools.caption_model import TextEncoder

        encoder = TextEncoder(options.text_model, options.device)
    told = encode_set(options.input, options.output, codecs, text_encoder=encoder, dtype=options.dtype,
                      device=options.device, dry_run=options.dry_run)  # fmt: skip
    would = "would encode" if options.dry_run else "encoded"
    return _report(options, told, f"{would} {told['encoded']} of {told['clips']} clips, {told['present']} are there; "
                   f"{told['failed']} cannot be read: {told['output']}")  # fmt: skip


def _download(options: argparse.Namespace) -> int:
    from data_tools.download import download, plan_options, present_urls, read_list

    if options.max_height is not None and options.max_height < 16:
        raise ValueError(f"--max-height is {options.max_height}; give at least 16 lines")
    wanted = read_list(options.list)
    if options.dry_run:
        todo = [item.url for item in wanted if item.url not in present_urls(options.output)]
        told = {"output": str(options.output), "listed": len(wanted), "urls": todo, "dry_run": True,
                "options": plan_options(options.output, options.max_height)}  # fmt: skip
        return _report(options, told, "\n".join([f"would fetch {len(todo)} of {len(wanted)} recordings:", *todo]))
    told = download(wanted, options.output, options.max_height)
    line = f"fetched {told['fetched']} of {told['listed']} recordings, {told['present']} were there: {told['output']}"
    _report(options, told | {"faults": told["failed"]}, line)
    return 1 if told["failed"] else 0


def _check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("--device is cuda, but torch finds no GPU here; use cpu")


def _report(options: argparse.Namespace, told: dict, line: str) -> int:
    if options.json:
        print(json.dumps(told, ensure_ascii=False))
        return 0
    for name, reason in told.get("faults", {}).items():
        print(f"{name}: {reason}")
    print(line)
    return 0

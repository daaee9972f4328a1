"""`mmdiff convert mm-diffusion`: published checkpoints into model folders, and model folders back."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmdiff.checkpoint import is_super_resolution
from mmdiff.convert.adm import STEM, export_upsampler, import_upsampler
from mmdiff.convert.file import State, read_state, write_state
from mmdiff.convert.mm_diffusion import export_joint, import_joint


def run_convert(options: argparse.Namespace) -> int:
    """Convert a published file into a model folder, or, where a folder is given, that folder into such a file."""
    convert = export_file if options.source.is_dir() else import_file
    state = convert(options.source, options.output, options.overrides)
    kind = "super-resolution network" if STEM in state else "coupled U-Net"
    print(f"{options.output}: {kind}, {sum(x.numel() for x in state.values()):,} parameters in {len(state)} tensors")
    return 0


def import_file(source: Path, folder: Path, overrides: Sequence[str] = ()) -> State:
    """Write the model folder of a published checkpoint; return its tensors.

    Errors: `ValueError` where the file is no such checkpoint, or its settings do not fit it; `FileExistsError`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: is there already; give a new folder")
    state = read_state(source)
    try:
        (import_upsampler if STEM in state else import_joint)(state, folder, overrides)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return state


def export_file(source: Path, target: Path, overrides: Sequence[str] = ()) -> State:
    """Write a model folder's network in the published form; return its tensors.

    Errors: `ValueError` where the published network has no place for a part of it; `FileExistsError`.
    """
    if overrides:
        raise ValueError(f"{overrides[0]}: a model folder knows its own settings; leave the word out")
    if target.exists():
        raise FileExistsError(f"{target}: is there already; give another name, or move it away")
    state = (export_upsampler if is_super_resolution(source) else export_joint)(source)
    write_state(target, state)
    return state

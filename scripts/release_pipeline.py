"""Write a pipeline of diffusers or a CLIP of transformers in half precision: `scripts/release_pipeline.py IN OUT`."""

import argparse
from pathlib import Path

import torch

from mmdiff.personalize.exports import forget_origin


def main() -> None:
    """Read one folder and write the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a pipeline, or of a CLIP")
    parser.add_argument("output", type=Path, help="folder to write")
    options = parser.parse_args()
    if (options.model / "model_index.json").is_file():
        from diffusers import DiffusionPipeline

        DiffusionPipeline.from_pretrained(options.model, torch_dtype=torch.float16).save_pretrained(options.output)
    else:
        from transformers import AutoTokenizer, CLIPModel

        CLIPModel.from_pretrained(options.model, dtype=torch.float16).save_pretrained(options.output)
        AutoTokenizer.from_pretrained(options.model).save_pretrained(options.output)
    for path in options.output.rglob("*.json"):
        forget_origin(path)
    weights = sum(path.stat().st_size for path in options.output.rglob("*.safetensors"))
    print(f"{options.output}: {weights / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()

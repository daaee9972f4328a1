"""Write an exported model in half precision: `python scripts/release_model.py runs/joint/export checkpoints/own`.

It takes half the room; weights are computed with in float32 all the same. Joint and video-to-audio models alike.
"""

import argparse

from torch import nn

from mmdiff.checkpoint import load_components, load_video_to_audio, save_components, save_video_to_audio
from mmdiff.pipelines.backends.hub import pipeline_class_of


def main() -> None:
    """Read one folder and write the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder that training exported")
    parser.add_argument("output", help="folder to write")
    options = parser.parse_args()
    is_joint = pipeline_class_of(options.model) == "JointPipeline"
    load, save = (load_components, save_components) if is_joint else (load_video_to_audio, save_video_to_audio)
    parts = load(options.model)
    for part in vars(parts).values():
        if isinstance(part, nn.Module):
            part.half()
    folder = save(options.output, parts)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*.safetensors')) / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()

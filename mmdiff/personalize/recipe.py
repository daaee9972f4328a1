"""The recipe of image personalization, with the names that users of diffusers' scripts know."""

from dataclasses import dataclass, field
from pathlib import Path

from mmdiff.personalize.backbones.image import WEIGHTING_SCHEMES, ObjectiveConfig
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

METHODS = ("lora", "dreambooth", "textual_inversion", "custom_diffusion")
WORD_METHODS = ("textual_inversion", "custom_diffusion")
PROPERTIES = ("object", "style")
CAPTION_DROPOUT = 0.05
DEFAULTS = {"max_steps": 500, "ema_decay": 0.0}


@dataclass(frozen=True)
class ImageRecipe(ScriptFlags):
    """Everything that decides a run which teaches a text-to-image model a concept.

    Paths, prompts and switches have the names of diffusers' scripts; optimizer, batch and steps are those of `train`.
    A caption is that of an image's `.txt` sidecar, else the prompt. `lora_alpha` is the rank where none is given.
    `learning_rate` and others of the scripts' names may stand for what `train` calls by another.
    `caption_dropout` is 0.05 where none is given, and 0 for methods that learn a word.

    Errors: `ValueError` where settings are impossible, or cannot go together.
    """

    task: str = "personalize_image"
    seed: int = 0
    output_dir: str = "runs/personalize"
    method: str = "lora"
    pretrained_model_name_or_path: str = ""
    # the concept
    instance_data_dir: str = ""
    instance_prompt: str = ""
    allow_single_image: bool = False  # of which a model learns little but that image
    # what keeps the model from forgetting the class
    with_prior_preservation: bool = False
    class_data_dir: str | None = None  # output_dir/class_images where none is given
    class_prompt: str = ""
    num_class_images: int = 100
    prior_loss_weight: float = 1.0
    sample_batch_size: int = 4
    # what is trained
    train_text_encoder: bool = False
    text_encoder_lr: float | None = None  # train.learning_rate where none is given
    rank: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_layers: list[str] = field(default_factory=list)
    lora_blocks: list[int] = field(default_factory=list)
    placeholder_token: str = ""
    initializer_token: str = ""
    learnable_property: str = "object"
    num_vectors: int = 1
    # pictures and captions
    resolution: int = 512
    use_aspect_ratio_buckets: bool = False
    center_crop: bool = True
    random_flip: bool = False
    caption_dropout: float | None = None
    max_sequence_length: int = 77  # of T5
    cache_latents: bool = True
    pre_compute_text_embeddings: bool = True
    dataloader_num_workers: int = 0
    # noise
    snr_gamma: float | None = None
    weighting_scheme: str = "logit_normal"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float | None = None
    # validation, every train.preview_every steps and before the first
    validation_prompt: str | None = None
    num_validation_images: int = 4
    num_inference_steps: int = 28
    guidance_scale: float | None = None
    train: TrainConfig = field(default_factory=lambda: TrainConfig(**DEFAULTS))

    def __post_init__(self) -> None:
        settle_flags(self, TrainConfig(**DEFAULTS))
        check_known(self, {"method": METHODS, "learnable_property": PROPERTIES, "weighting_scheme": WEIGHTING_SCHEMES})
        check_counts(self, "rank", "num_vectors", "resolution", "num_class_images", "sample_batch_size",
                     "num_validation_images", "num_inference_steps", "max_sequence_length")  # fmt: skip
        check_shares(self, "lora_dropout", "caption_dropout")
        check_positive(self, "lora_alpha", "shift", "snr_gamma")
        check_prior(self)
        self._check_method()
        self._check_data()

    def _check_method(self) -> None:
        if self.method in WORD_METHODS:
            if not self.placeholder_token:
                raise ValueError(f"placeholder_token: method {self.method} learns a word; name it, such as <my-toy>")
            if not self.initializer_token.strip():
                raise ValueError("initializer_token: say in a plain word what the concept is, such as toy; the new "
                                 "word begins as it")  # fmt: skip
            if self.instance_prompt and self.placeholder_token not in self.instance_prompt:
                raise ValueError(f"instance_prompt: '{self.instance_prompt}' lacks the word that is learned, "
                                 f"{self.placeholder_token}")  # fmt: skip
            if self.train_text_encoder:
                raise ValueError(f"train_text_encoder: method {self.method} leaves the text encoder as it is; leave it "
                                 "out, or use lora or dreambooth")  # fmt: skip
        elif self.placeholder_token:
            raise ValueError(f"placeholder_token: method {self.method} learns no new word; write a rare one into "
                             "instance_prompt, such as 'a photo of sks dog', or use textual_inversion")  # fmt: skip
        if self.text_encoder_lr is not None and not (self.train_text_encoder and 0 < self.text_encoder_lr < 0.05):
            raise ValueError(f"text_encoder_lr is {self.text_encoder_lr}; it is a rate between 0 and 0.05, where "
                             "train_text_encoder is true")  # fmt: skip
        if self.text_encoder_lr is not None and self.train.optimizer == "prodigy":
            raise ValueError("text_encoder_lr: prodigy finds one rate for all; leave it out, or use adamw")
        if (self.lora_layers or self.lora_blocks) and self.method != "lora":
            raise ValueError(f"lora_layers, lora_blocks: method {self.method} has no LoRA; leave them out")

    def _check_data(self) -> None:
        check_given(self, "pretrained_model_name_or_path", "instance_data_dir")
        if self.with_prior_preservation and not self.class_prompt:
            raise ValueError("class_prompt: with_prior_preservation needs to know the class; say it, such as "
                             "'a photo of a dog'")  # fmt: skip
        if self.cache_latents and not self.center_crop:
            raise ValueError("center_crop: latents that are cached are cut in one place; set cache_latents to false to "
                             "cut at random")  # fmt: skip

    @property
    def dropout(self) -> float:
        """How often a caption is left out."""
        if self.caption_dropout is None:
            return 0.0 if self.method in WORD_METHODS else CAPTION_DROPOUT
        return self.caption_dropout

    @property
    def rate_shares(self) -> dict[str, float]:
        """The rates of parts of the model as shares of `train.learning_rate`, where they differ."""
        if self.text_encoder_lr is None:
            return {}
        share = self.text_encoder_lr / self.train.learning_rate
        return dict.fromkeys(("text_encoder", "text_encoder_2"), share)

    @property
    def class_folder(self) -> Path:
        """Where images of the class lie, or will."""
        return Path(self.class_data_dir or Path(self.output_dir) / "class_images").expanduser()

    @property
    def objective(self) -> ObjectiveConfig:
        """How noise is drawn and weighed."""
        return ObjectiveConfig(self.snr_gamma, self.weighting_scheme, self.logit_mean, self.logit_std, self.shift)

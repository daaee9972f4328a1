"""A recipe's folders as examples: pictures of the concept and of its class, and what each is called."""

from collections import Counter
from pathlib import Path

import numpy as np

from mmdiff.personalize.concepts import (
    Picture,
    aspect_buckets,
    check_pictures,
    list_images,
    nearest_bucket,
    read_pictures,
)
from mmdiff.personalize.recipe import WORD_METHODS, ImageRecipe
from mmdiff.personalize.stream import ConceptStream, StreamConfig
from mmdiff.personalize.textual_inversion import TEMPLATES


class Examples:
    """The pictures that a recipe names.

    Errors: `ValueError` where a folder or a file cannot be used, or a picture is called nothing.
    """

    def __init__(self, recipe: ImageRecipe):
        self.recipe = recipe
        self.pictures = read_pictures(recipe.instance_data_dir, "instance_data_dir")
        check_pictures(self.pictures, recipe.resolution, may_be_one=recipe.allow_single_image)
        self.class_pictures: list[Picture] | None = None
        if recipe.with_prior_preservation:
            self._check_class_folder()
        nameless = [each.path.name for each in self.pictures if not self.named(each)]
        if nameless:
            raise ValueError(f"instance_prompt: missing, and {nameless[0]} and {len(nameless) - 1} more images have no "
                             ".txt file with a caption; give either")  # fmt: skip

    def named(self, picture: Picture) -> list[str]:
        """Return all captions that a picture of the concept may have."""
        recipe = self.recipe
        has_word = recipe.method in WORD_METHODS
        if picture.caption and (not has_word or recipe.placeholder_token in picture.caption):
            return [picture.caption]
        if recipe.instance_prompt:
            return [recipe.instance_prompt]
        templates = TEMPLATES[recipe.learnable_property] if has_word else ()
        return [template.format(recipe.placeholder_token) for template in templates]

    def caption(self, picture: Picture, is_class: bool, rng: np.random.Generator) -> str:
        """Return what a picture is called this time."""
        if is_class:
            return picture.caption or self.recipe.class_prompt
        captions = self.named(picture)
        return captions[int(rng.integers(len(captions)))]

    def own_captions(self) -> list[str]:
        """Return every caption that a picture of the concept may have, once."""
        return list(dict.fromkeys(caption for picture in self.pictures for caption in self.named(picture)))

    def all_captions(self) -> list[str]:
        """Return every caption that may be asked for, once."""
        of_class = (picture.caption or self.recipe.class_prompt for picture in self.of_class())
        return list(dict.fromkeys([*self.own_captions(), *of_class]))

    def lacks_class_images(self) -> bool:
        """Say whether images of the class are wanted and not all there."""
        recipe = self.recipe
        return recipe.with_prior_preservation and len(list_images(recipe.class_folder)) < recipe.num_class_images

    def of_class(self) -> list[Picture]:
        """Return the pictures of the class, which may have been made since the run began."""
        if not self.recipe.with_prior_preservation:
            return []
        if self.class_pictures is None:
            self.class_pictures = read_pictures(self.recipe.class_folder, "class_data_dir")
        return self.class_pictures

    def buckets(self, multiple: int) -> list[tuple[int, int]]:
        """Return the sizes that pictures are brought to."""
        recipe = self.recipe
        square = [(recipe.resolution, recipe.resolution)]
        return aspect_buckets(recipe.resolution, multiple) if recipe.use_aspect_ratio_buckets else square

    def stream(self, multiple: int, *, rank: int, world_size: int) -> ConceptStream:
        """Return the endless stream of batches."""
        recipe = self.recipe
        config = StreamConfig(self.buckets(multiple), recipe.random_flip, recipe.center_crop, not recipe.cache_latents)
        return ConceptStream(
            self.pictures, self.of_class(), config, self.caption, batch_size=recipe.train.batch_size, seed=recipe.seed,
            rank=rank, world_size=world_size,
        )  # fmt: skip

    def table(self, multiple: int) -> str:
        """Return what there is, for people."""
        recipe = self.recipe
        sizes = Counter(nearest_bucket(picture, self.buckets(multiple)) for picture in self.pictures)
        captioned = sum(self.named(picture) == [picture.caption] for picture in self.pictures)
        shapes = ", ".join(f"{count} of {width}x{height}" for (height, width), count in sorted(sizes.items()))
        lines = [f"concept: {len(self.pictures)} images ({shapes}), {captioned} with a caption of their own"]
        if recipe.with_prior_preservation:
            found = len(list_images(recipe.class_folder))
            lacking = max(recipe.num_class_images - found, 0)
            lines.append(f"class '{recipe.class_prompt}': {found} images, {lacking} to be made by the model")
        return "\n".join(lines)

    def _check_class_folder(self) -> None:
        folder = self.recipe.class_folder
        if folder.exists() and folder.samefile(Path(self.recipe.instance_data_dir).expanduser()):
            raise ValueError(f"class_data_dir: {folder} is instance_data_dir too; give images of the class a folder of "
                             "their own")  # fmt: skip
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"class_data_dir: {folder} is no folder; name one with images, or one that is not there")
        if list_images(folder):
            read_pictures(folder, "class_data_dir")

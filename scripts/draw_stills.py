"""Draw captioned stills of simple things, and a concept that they do not show: what `checkpoints/stills` learnt from.

`OUT/train` holds stills with their captions ("a red ball on snow at night"), `OUT/concept` five pictures of one robot
that looks like no other, `OUT/held_out` more of it, in places where the five do not show it. One seed, the same bytes.
"""

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

SIZE, FINE = 64, 4  # pixels; drawn so many times as large
COLOURS = {"red": (220, 40, 40), "orange": (245, 140, 20), "yellow": (245, 220, 50), "green": (40, 170, 60),
           "blue": (45, 80, 225), "purple": (150, 50, 190), "pink": (245, 130, 180),
           "white": (245, 245, 245)}  # fmt: skip
THINGS = ("ball", "box", "star", "heart", "robot")
GROUNDS = {"wood": (150, 96, 50), "grass": (70, 140, 50), "snow": (232, 238, 246), "sand": (226, 196, 128),
           "stone": (120, 120, 126), "water": (40, 110, 170)}  # fmt: skip
SKIES = {"by day": ((140, 200, 245), (205, 230, 250)), "at night": ((10, 14, 40), (36, 44, 84)),
         "at sunset": ((110, 60, 120), (250, 150, 80))}  # fmt: skip
SHOWN = (("grass", "by day"), ("wood", "by day"), ("stone", "at sunset"), ("sand", "by day"),
         ("grass", "at sunset"))
CONCEPT = "sks robot"


@dataclass(frozen=True)
class Still:
    """What a still shows: a thing in a colour (the concept has its own), where, when, and how large and far right."""

    thing: str
    colour: str
    ground: str
    sky: str
    x: float = 0.5
    size: float = 0.3
    tells_colour: bool = True

    @property
    def caption(self) -> str:
        """Return what is to be seen, in words."""
        name = f"{self.colour} {self.thing}" if self.tells_colour else self.thing
        article = "an" if name[0] in "aeio" else "a"
        return f"{article} {name} on {self.ground} {self.sky}"


def draw(still: Still, rng: np.random.Generator) -> Image.Image:
    """Return a still."""
    side = SIZE * FINE
    horizon = round(side * rng.uniform(0.56, 0.66))
    image = Image.new("RGB", (side, side))
    pen = ImageDraw.Draw(image)
    _draw_sky(pen, still.sky, side, horizon, rng)
    _draw_ground(pen, still.ground, side, horizon, rng)
    if still.sky != "by day":
        shade = Image.new("RGB", image.size, (16, 20, 60) if still.sky == "at night" else (120, 60, 50))
        below = image.crop((0, horizon, side, side))
        share = 0.45 if still.sky == "at night" else 0.22
        image.paste(Image.blend(below, shade.crop((0, horizon, side, side)), share), (0, horizon))
    foot = horizon + round(side * rng.uniform(0.12, 0.2))
    _draw_thing(ImageDraw.Draw(image), still, still.x * side, foot, still.size * side)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _draw_sky(pen: ImageDraw.ImageDraw, sky: str, side: int, horizon: int, rng: np.random.Generator) -> None:
    above, below = (np.array(colour) for colour in SKIES[sky])
    for y in range(horizon):
        pen.line((0, y, side, y), fill=tuple(int(v) for v in above + (below - above) * y / horizon))
    if sky == "at night":
        for x, y in rng.uniform(0.03, 0.97, (14, 2)):
            pen.ellipse(_round(x * side, y * horizon * 0.8, 0.008 * side), fill=(255, 255, 230))
    if sky == "at sunset":
        x = rng.uniform(0.1, 0.9) * side
        pen.ellipse(_round(x, horizon, 0.11 * side), fill=(255, 225, 120))
    if sky == "by day":
        x, y = rng.uniform(0.1, 0.9) * side, rng.uniform(0.08, 0.3) * horizon
        for shift, radius in ((-0.07, 0.04), (0.0, 0.055), (0.07, 0.04)):
            pen.ellipse(_round(x + shift * side, y, radius * side), fill=(255, 255, 255))


def _draw_ground(pen: ImageDraw.ImageDraw, ground: str, side: int, horizon: int, rng: np.random.Generator) -> None:
    colour = np.array(GROUNDS[ground])
    pen.rectangle((0, horizon, side, side), fill=tuple(colour.tolist()))
    dark, light = (tuple(int(v) for v in (colour * factor).clip(0, 255)) for factor in (0.72, 1.25))
    if ground == "wood":
        for y in np.arange(horizon, side, side / 10):
            pen.line((0, y, side, y), fill=dark, width=FINE)
    elif ground == "water":
        for y in np.arange(horizon + side / 20, side, side / 11):
            start = rng.uniform(0, side / 6)
            for x in np.arange(start - side / 6, side, side / 4):
                pen.arc((x, y, x + side / 7, y + side / 18), 180, 360, fill=light, width=FINE)
    elif ground in ("grass", "sand", "stone"):
        reach = {"grass": (1, 8), "sand": (2, 2), "stone": (9, 5)}[ground]
        for x, y in rng.uniform(0, 1, (70, 2)):
            x, y = x * side, horizon + y * (side - horizon)
            pen.ellipse((x, y, x + reach[0] * FINE, y + reach[1] * FINE), fill=dark if rng.random() < 0.6 else light)


def _draw_thing(pen: ImageDraw.ImageDraw, still: Still, x: float, foot: float, size: float) -> None:
    """Draw a thing of a height of `size`, which stands on `foot`."""
    pen.ellipse((x - 0.5 * size, foot - 0.07 * size, x + 0.5 * size, foot + 0.07 * size), fill=(30, 30, 36))
    colour, middle = COLOURS.get(still.colour, (0, 0, 0)), foot - 0.5 * size
    if still.thing == "ball":
        pen.ellipse(_round(x, middle, 0.5 * size), fill=colour)
        pen.ellipse(_round(x - 0.15 * size, middle - 0.18 * size, 0.1 * size), fill=(255, 255, 255))
    elif still.thing == "box":
        pen.rectangle((x - 0.45 * size, foot - 0.9 * size, x + 0.45 * size, foot), fill=colour)
        pen.line((x, foot - 0.9 * size, x, foot), fill=(40, 30, 30), width=FINE * 2)
        pen.line((x - 0.45 * size, middle, x + 0.45 * size, middle), fill=(40, 30, 30), width=FINE * 2)
    elif still.thing == "star":
        reach = [(0.56 if i % 2 == 0 else 0.24) * size for i in range(10)]
        pen.polygon([(x + r * math.sin(i * math.pi / 5), middle - r * math.cos(i * math.pi / 5)) for i, r in
                     enumerate(reach)], fill=colour)  # fmt: skip
    elif still.thing == "heart":
        for sign in (-1, 1):
            pen.ellipse(_round(x + sign * 0.23 * size, middle - 0.18 * size, 0.26 * size), fill=colour)
        pen.polygon([(x - 0.46 * size, middle - 0.06 * size), (x + 0.46 * size, middle - 0.06 * size),
                     (x, foot)], fill=colour)  # fmt: skip
    else:
        _draw_robot(pen, still, x, foot, size)


def _draw_robot(pen: ImageDraw.ImageDraw, still: Still, x: float, foot: float, size: float) -> None:
    """Draw a robot of one colour with two eyes; the concept is two-coloured, has one eye and two feelers."""
    is_concept = still.thing == CONCEPT
    body = (20, 190, 180) if is_concept else COLOURS[still.colour]
    head = (250, 120, 60) if is_concept else body
    for sign in (-1, 1):
        leg = x + sign * 0.2 * size
        pen.rectangle((leg - 0.08 * size, foot - 0.2 * size, leg + 0.08 * size, foot), fill=(70, 70, 80))
    pen.rectangle((x - 0.36 * size, foot - 0.62 * size, x + 0.36 * size, foot - 0.15 * size), fill=body)
    if is_concept:
        for share in (0.3, 0.46):
            pen.rectangle((x - 0.36 * size, foot - (share + 0.06) * size, x + 0.36 * size, foot - share * size),
                          fill=(255, 235, 120))  # fmt: skip
    top = foot - 1.0 * size
    pen.rectangle((x - 0.27 * size, top, x + 0.27 * size, foot - 0.66 * size), fill=head)
    for sign in (-1, 1) if is_concept else (0,):
        end = x + sign * 0.26 * size
        pen.line((x + sign * 0.12 * size, top, end, top - 0.2 * size), fill=(70, 70, 80), width=2 * FINE)
        pen.ellipse(_round(end, top - 0.22 * size, 0.06 * size), fill=head)
    for place, radius in ((0.0, 0.13),) if is_concept else ((-0.12, 0.065), (0.12, 0.065)):
        pen.ellipse(_round(x + place * size, top + 0.17 * size, radius * size), fill=(255, 255, 255))
        pen.ellipse(_round(x + place * size, top + 0.17 * size, radius * size * 0.5), fill=(20, 20, 30))


def _round(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _concept(ground: str, sky: str) -> Still:
    return Still(CONCEPT, "", ground, sky, tells_colour=False)


def _placed(still: Still, rng: np.random.Generator) -> Still:
    return replace(still, x=rng.uniform(0.32, 0.68), size=rng.uniform(0.36, 0.5))


def plan(count: int, rng: np.random.Generator) -> dict[str, list[Still]]:
    """Return the stills of every folder."""
    def pick(names):
        return str(rng.choice(list(names)))

    def of_train():
        shown = Still(pick(THINGS), pick(COLOURS), pick(GROUNDS), pick(SKIES), tells_colour=rng.random() < 0.8)
        return _placed(shown, rng)

    train = [of_train() for _ in range(count)]
    concept = [_placed(_concept(*place), rng) for place in SHOWN]
    unseen = [(ground, sky) for ground in GROUNDS for sky in SKIES if (ground, sky) not in SHOWN]
    held_out = [_placed(_concept(*place), rng) for place in unseen for _ in range(4)]
    return {"train": train, "concept": concept, "held_out": held_out}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("-n", "--count", type=int, default=4000, help="stills to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for name, stills in plan(options.count, rng).items():
        folder = options.output / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, still in enumerate(tqdm(stills, desc=name, unit="still")):
            draw(still, rng).save(folder / f"{number:05d}.png")
            (folder / f"{number:05d}.txt").write_text(still.caption + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

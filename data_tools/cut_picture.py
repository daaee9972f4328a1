"""Fitting pictures to a clip's size in the decoder's own colours: no detour through RGB, one filter graph for all."""

from dataclasses import dataclass
from fractions import Fraction

from av.filter import Graph
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from mmdiff.media.video import HD_LINES, UNSPECIFIED

# Counter-clockwise degrees that a display matrix asks for, and the filters that turn so.
TURNS = {0: (), 90: (("transpose", "cclock"),), 180: (("hflip", ""), ("vflip", "")), 270: (("transpose", "clock"),)}
BT709, SMPTE170M, BT2020 = 1, 6, 9  # ITU-T H.273; 0 is RGB, 5 another name of 6
MATRICES = {1: "bt709", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
USUAL = {BT709: (BT709, BT709), BT2020: (BT2020, BT709)}  # primaries and transfer of untagged video, by matrix
# Averaging is true and fast where at least two pixels make one; without accurate_rnd swscale rounds down.
SHRINKING, NEARBY = "area+accurate_rnd+full_chroma_int", "bicubic+accurate_rnd+full_chroma_int"


@dataclass(frozen=True)
class Geometry:
    """How a stored picture becomes a clip's: `box` is cut from its middle, scaled, padded to `target`, then turned."""

    box: tuple[int, int]
    scaled: tuple[int, int]
    target: tuple[int, int]


def plan_geometry(
    width: int, height: int, aspect: Fraction, degrees: int, target: tuple[int, int] | None, fit: str
) -> Geometry:
    """Return the geometry for a picture of `width` x `height` whose pixels are `aspect` times as wide as high.

    target: width and height of the clip, as it is seen; None keeps the recording's, evened and with square pixels.
    """
    seen = Fraction(width) * aspect, Fraction(height)
    if target is None:
        size = tuple(max(round(side) // 2 * 2, 16) for side in seen)
        is_as_it_is = aspect == 1 and min(width, height) >= 16
        return Geometry(size if is_as_it_is else (width, height), size, size)
    size = target[::-1] if degrees in (90, 270) else target
    ratios = [Fraction(size[i]) / seen[i] for i in (0, 1)]
    if fit == "crop":
        kept = size[0] / max(ratios) / aspect, size[1] / max(ratios)
        box = tuple(side if side - part < 2 else max(_even(part), 2) for side, part in zip((width, height), kept))
        return Geometry(box, size, size)
    return Geometry((width, height), tuple(min(max(_even(seen[i] * min(ratios)), 2), size[i]) for i in (0, 1)), size)


class PictureFitter:
    """Turns decoded frames into frames of a clip: yuv420p of one size, upright, limited range, tagged.

    `tags` (primaries, transfer, matrix) are those of the first frame: colours are kept, only a picture without tags
    gets those by which players would have shown it.
    """

    def __init__(self, stream: VideoStream, target: tuple[int, int] | None, fit: str):
        self.stream, self.target, self.fit = stream, target, fit
        self.tags: tuple[int, int, int] | None = None
        self.size: tuple[int, int] | None = None
        self._kind: tuple | None = None
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame as the clip shows it."""
        degrees = round(frame.rotation) % 360 // 90 * 90
        kind = (frame.width, frame.height, frame.format.name, int(frame.color_range), int(frame.colorspace), degrees)
        if kind != self._kind:
            self._build(frame, degrees)
            self._kind = kind
        self._graph.vpush(frame)
        fitted = self._graph.vpull()
        fitted.pict_type = PictureType.NONE
        return fitted

    def _build(self, frame: VideoFrame, degrees: int) -> None:
        aspect = Fraction(self.stream.sample_aspect_ratio or 1)
        aspect = aspect if Fraction(1, 8) <= aspect <= 8 else Fraction(1)
        target = self.target or self.size  # should the stream change its size, the first one stays
        plan = plan_geometry(frame.width, frame.height, aspect, degrees, target, self.fit)
        matrix = _matrix(frame)
        if self.tags is None:
            known = [int(value) for value in (frame.color_primaries, frame.color_trc)]
            made = matrix or BT709
            usual = USUAL.get(made, (SMPTE170M, SMPTE170M))
            self.tags = (*(k if k not in (0, UNSPECIFIED) else u for k, u in zip(known, usual, strict=True)), made)
        # swscale reads a part of a picture three times as slowly as a copy of that part.
        is_part = plan.box != (frame.width, frame.height)
        chain = [("crop", f"{plan.box[0]}:{plan.box[1]}"), ("copy", "")] if is_part else []
        chain.append(("scale", _scale_words(plan, matrix, self.tags[2])))
        if plan.scaled != plan.target:
            left, top = ((plan.target[i] - plan.scaled[i]) // 4 * 2 for i in (0, 1))
            chain.append(("pad", f"{plan.target[0]}:{plan.target[1]}:{left}:{top}"))
        self._graph = _link(frame, [*chain, *TURNS[degrees], ("setsar", "1"), ("format", "yuv420p")])
        self.size = plan.target[::-1] if degrees in (90, 270) else plan.target


def _link(frame: VideoFrame, chain: list[tuple[str, str]]) -> Graph:
    graph = Graph()
    graph.threads = 1
    last = graph.add(
        "buffer", video_size=f"{frame.width}x{frame.height}", pix_fmt=frame.format.name, pixel_aspect="1/1",
        time_base="1/1000", colorspace=str(int(frame.colorspace)), range=str(int(frame.color_range)),
    )  # fmt: skip
    for name, words in chain:
        step = graph.add(name, words) if words else graph.add(name)
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _scale_words(plan: Geometry, matrix: int, made: int) -> str:
    width, height = plan.scaled
    is_smaller = 2 * width <= plan.box[0] and 2 * height <= plan.box[1]
    words = f"{width}:{height}:flags={SHRINKING if is_smaller else NEARBY}:out_range=limited"
    if matrix != made:
        words += f":in_color_matrix={MATRICES[matrix]}" if matrix in MATRICES else ""
        words += f":out_color_matrix={MATRICES.get(made, 'bt709')}"
    return words


def _matrix(frame: VideoFrame) -> int:
    """Return the frame's colour matrix; players take untagged video above 576 lines as BT.709, below as BT.601."""
    tagged = int(frame.colorspace)
    if tagged == UNSPECIFIED:
        return BT709 if frame.height > HD_LINES else SMPTE170M
    return tagged


def _even(value: Fraction) -> int:
    return round(value / 2) * 2

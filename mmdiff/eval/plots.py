"""Plots as inline SVG: numbers -> markup, coloured by the page's style sheet so that light and dark both read well."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44  # margins around the axes, in SVG units


@dataclass(frozen=True)
class Figure:
    """A picture for the report: markup, what it shows in one sentence, and the caption that explains it."""

    svg: Markup
    alt: str
    caption: str


@dataclass(frozen=True)
class Axes:
    """A plot's axes: values at their ends, labels (without a vertical one, no ticks either), sizes in SVG units."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    width: int = 560
    height: int = 300
    is_log_y: bool = False
    left_margin: int = LEFT

    def left(self, value: float) -> float:
        """Return the horizontal place of a value, kept within the axes."""
        low, high = self.x
        share = (min(max(value, low), high) - low) / ((high - low) or 1)
        return round(self.left_margin + share * (self.width - self.left_margin - RIGHT), 2)

    def top(self, value: float) -> float:
        """Return the vertical place of a value, kept within the axes."""
        low, high, value = (math.log10(v) if self.is_log_y else v for v in (*self.y, value))
        share = (min(max(value, low), high) - low) / ((high - low) or 1)
        return round(self.height - BOTTOM - share * (self.height - TOP - BOTTOM), 2)

    def draw(self, alt: str, content: Sequence[Markup]) -> Markup:
        """Return the whole picture: grid, ticks, labels and the content."""
        head = Markup('<svg class="plot{}" role="img" viewBox="0 0 {} {}" aria-label="{}">')
        parts = [head.format(" wide" if self.width > 600 else "", self.width, self.height, alt), *self._ticks()]
        middle = (self.left_margin + self.width - RIGHT) / 2
        parts.append(text(middle, self.height - 8, self.x_label, "label"))
        turned = Markup('<text class="label" x="14" y="{y}" transform="rotate(-90 14 {y})">{words}</text>')
        parts.append(turned.format(y=(TOP + self.height - BOTTOM) / 2, words=self.y_label))
        return Markup("").join([*parts, *content, Markup("</svg>")])

    def _ticks(self) -> list[Markup]:
        parts, bottom = [], self.height - BOTTOM
        for value in ticks(*self.x, 8):
            parts.append(line(self.left(value), TOP, self.left(value), bottom, "grid"))
            parts.append(text(self.left(value), bottom + 16, tick_label(value), "tick"))
        vertical = log_ticks(*self.y) if self.is_log_y else ticks(*self.y)
        for value in vertical if self.y_label else ():
            parts.append(line(self.left_margin, self.top(value), self.width - RIGHT, self.top(value), "grid"))
            parts.append(text(self.left_margin - 6, self.top(value) + 4, tick_label(value), "tick end"))
        return parts


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return about `count` round numbers (steps of 1, 2 or 5 times a power of ten) between two values."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two positive values; only the powers over a wide range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high / low > 1000 else (1, 2, 5)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def tick_label(value: float) -> str:
    """Write a tick's number briefly, with a true minus sign."""
    return f"{value:.6g}".replace("-", "−")


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """Return a line between two points."""
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(css, x1, y1, x2, y2)


def text(x: float, y: float, words: str, css: str) -> Markup:
    """Return words at a point."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(css, x, y, words)


def circle(x: float, y: float, css: str) -> Markup:
    """Return a dot at a point."""
    return Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format(css, x, y)


def interval_plot(rows: Sequence[Mapping], metric: str, label: str) -> Figure | None:
    """Draw a metric between 0 and 1 of every row as a dot with its interval; None where no row has it."""
    shown = [row for row in rows if is_number(row[metric]["value"])]
    if not shown:
        return None
    axes = Axes((0, 1), (0, 1), label, "", 860, TOP + BOTTOM + 28 * len(shown), left_margin=210)
    parts = []
    for number, row in enumerate(shown):
        numbers, middle = row[metric], TOP + 28 * number + 14
        parts.append(text(axes.left_margin - 12, middle + 4, row["name"], "tick end"))
        if is_number(numbers["low"]) and is_number(numbers["high"]):
            ends = [axes.left(numbers[end]) for end in ("low", "high")]
            parts.append(line(ends[0], middle, ends[1], middle, f"interval {row['kind']}"))
        parts.append(circle(axes.left(numbers["value"]), middle, f"dot {row['kind']}"))
    alt = f"{label} of each row: " + "; ".join(f"{row['name']} {row[metric]['value']:.3g}" for row in shown)
    caption = f"{label}: the dot is the measured value, the bar its bootstrap interval."
    return Figure(axes.draw(alt, parts), alt, caption)


def estimate_plot(rows: Sequence[Mapping], title: str, label: str, yardstick: Mapping | None = None) -> Figure | None:
    """Draw one metric's rows (of, kind, value, low, high) as dots with intervals, over a band of the yardstick's own.

    The axis holds nought where that is no farther away than the values reach. None where no row has a value.
    """
    shown = [row for row in rows if is_number(row["value"])]
    if not shown:
        return None
    axes = Axes(_limits(shown), (0, 1), label, "", 480, TOP + BOTTOM + 24 * len(shown), left_margin=168)
    parts = []
    if yardstick is not None and is_number(yardstick["low"]) and is_number(yardstick["high"]):
        left, right = axes.left(yardstick["low"]), axes.left(yardstick["high"])
        band = Markup('<rect class="band {}" x="{}" y="{}" width="{}" height="{}"/>')
        parts.append(band.format(yardstick["kind"], left, TOP, round(right - left, 2), axes.height - TOP - BOTTOM))
    for number, row in enumerate(shown):
        middle = TOP + 24 * number + 12
        parts.append(text(axes.left_margin - 12, middle + 4, shorten(row["of"], 24), "tick end"))
        if is_number(row["low"]) and is_number(row["high"]):
            parts.append(line(axes.left(row["low"]), middle, axes.left(row["high"]), middle, f"interval {row['kind']}"))
        parts.append(circle(axes.left(row["value"]), middle, f"dot {row['kind']}"))
    alt = f"{title}, {label}: " + "; ".join(f"{row['of']} {row['value']:.3g}" for row in shown)
    return Figure(axes.draw(alt, parts), alt, title)


def _limits(rows: Sequence[Mapping]) -> tuple[float, float]:
    values = [row[end] for row in rows for end in ("value", "low", "high") if is_number(row[end])]
    low, high = min(values), max(values)
    reach = high - low or abs(high) or 1
    low, high = (low if low > reach else min(low, 0)), (high if -high > reach else max(high, 0))
    margin = 0.04 * (high - low)
    return low - margin * (low != 0), high + margin * (high != 0)


def shorten(words: str, most: int) -> str:
    """Leave out the middle of words that are longer than so many letters."""
    return words if len(words) <= most else f"{words[: most // 2]}…{words[len(words) - (most - 1) // 2 :]}"


def offset_histogram(offsets: Mapping[str, tuple[str, Sequence[float]]]) -> Figure | None:
    """Draw signed offsets in ms as one panel a row (name -> kind, offsets), on one axis; None where there are none."""
    offsets = {name: (kind, [v for v in values if is_number(v)]) for name, (kind, values) in offsets.items()}
    everything = [abs(v) for _, values in offsets.values() for v in values]
    if not everything:
        return None
    reach = math.ceil(max(50, *everything) / 10) * 10
    bins, panel = np.linspace(-reach, reach, 42), 74
    label = "sound minus picture, in ms (negative: the sound is early)"
    axes = Axes((-reach, reach), (0, 1), label, "", 860, TOP + BOTTOM + panel * len(offsets))
    parts = [line(axes.left(0), TOP, axes.left(0), axes.height - BOTTOM, "zero")]
    for number, (name, (kind, values)) in enumerate(offsets.items()):
        bottom = TOP + panel * (number + 1)
        parts.append(line(axes.left_margin, bottom, axes.width - RIGHT, bottom, "axis"))
        parts += _bars(axes, bins, values, bottom, panel - 24, kind)
        note = f"{name}: {len(values)} pairs of events"
        parts.append(text(axes.left_margin + 4, bottom - panel + 16, note, "note"))
    alt = "Histograms of signed offsets. " + "; ".join(
        f"{name}: {len(values)} offsets, median {np.median(values):.0f} ms" if values else f"{name}: none"
        for name, (_, values) in offsets.items()
    )
    caption = (
        "Offsets of all pairs of events that were matched; each panel is scaled to its own tallest bar. Chance matches "
        "spread over the whole width, true ones gather at one place: at zero, where sound and picture agree."
    )
    return Figure(axes.draw(alt, parts), alt, caption)


def _bars(
    axes: Axes, bins: np.ndarray, values: Sequence[float], bottom: float, reach: float, kind: str
) -> list[Markup]:
    counts, _ = np.histogram(values, bins)
    tallest = max(int(counts.max()), 1)
    bar = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"/>')
    parts = []
    for count, low, high in zip(counts, bins, bins[1:]):
        if count:
            height, left = round(reach * count / tallest, 2), axes.left(low)
            width = round(axes.left(high) - left - 1, 2)
            parts.append(bar.format(kind, left, round(bottom - height, 2), width, height))
    return parts


def calibration_plot(points: Sequence[Mapping]) -> Figure | None:
    """Draw the measured offset against the injected one, with intervals and the identity line; None without points."""
    points = [p for p in points if is_number(p["measured_ms"])]
    if not points:
        return None
    values = [p[name] for p in points for name in ("injected_ms", "measured_ms", "low", "high") if is_number(p[name])]
    reach = max(abs(v) for v in values) * 1.08 or 1
    axes = Axes((-reach, reach), (-reach, reach), "injected offset, ms", "measured offset, ms", 560, 420)
    parts = [line(axes.left(-reach), axes.top(-reach), axes.left(reach), axes.top(reach), "identity")]
    for p in points:
        x = axes.left(p["injected_ms"])
        if is_number(p["low"]) and is_number(p["high"]):
            parts.append(line(x, axes.top(p["low"]), x, axes.top(p["high"]), "interval real"))
        parts.append(circle(x, axes.top(p["measured_ms"]), "dot real"))
    worst = max(abs(p["measured_ms"] - p["injected_ms"]) for p in points)
    alt = f"Calibration: {len(points)} injected offsets; the measured ones differ from them by at most {worst:.1f} ms"
    caption = (
        "The sound of real clips was moved by a known amount and the estimator asked for the offset. "
        f"On the dashed line it would be exact; the largest distance from it is {worst:.1f} ms."
    )
    return Figure(axes.draw(alt, parts), alt, caption)


def loss_plot(series: Mapping[str, Sequence[tuple[float, float]]], title: str = "training") -> Figure | None:
    """Draw each modality's loss (name -> (step, loss) pairs) over the steps, logarithmically; None without any."""
    series = {name: [(s, v) for s, v in pairs if is_number(v) and v > 0] for name, pairs in series.items()}
    series = {name: thin(pairs, 400) for name, pairs in series.items() if pairs}
    if not series:
        return None
    steps = [s for pairs in series.values() for s, _ in pairs]
    losses = [v for pairs in series.values() for _, v in pairs]
    limits = (min(losses) / 1.1, max(losses) * 1.1)
    axes = Axes((min(steps), max(steps)), limits, "step", "loss", 560, 300, is_log_y=True)
    parts = []
    for number, (name, pairs) in enumerate(series.items()):
        places = " ".join(f"{axes.left(s)},{axes.top(v)}" for s, v in pairs)
        parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(name, places))
        top = TOP + 16 + 18 * number
        parts.append(line(axes.width - 118, top - 4, axes.width - 94, top - 4, f"curve {name}"))
        parts.append(text(axes.width - 88, top, name, "note"))
    ends = "; ".join(f"{name} {pairs[0][1]:.3g} to {pairs[-1][1]:.3g}" for name, pairs in series.items())
    alt = f"Loss of {title} by step: {ends}"
    caption = f"Loss of each modality, steps {min(steps):g} to {max(steps):g} ({ends})."
    return Figure(axes.draw(alt, parts), alt, caption)


def thin(pairs: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Average neighbouring points until at most `most` remain."""
    size = math.ceil(len(pairs) / most)
    groups = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return [tuple(sum(column) / len(group) for column in zip(*group)) for group in groups]


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""A small line chart of numbers, as points of an SVG. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

# In pixels; the line stays EDGE away from the border, so that its stroke is whole.
WIDTH = 320
HEIGHT = 72
EDGE = 6


@dataclass(frozen=True, slots=True)
class Chart:
    """A line within WIDTH x HEIGHT. The texts say what is at its ends, and `label` says it all."""

    points: list[tuple[float, float]]
    first: str
    last: str
    low: str
    high: str
    label: str

    @property
    def line(self) -> str:
        """The points as an SVG polyline takes them."""
        return " ".join(f"{x},{y}" for x, y in self.points)


def drawn(
    values: Sequence[tuple[datetime, float]],
    *,
    first: str,
    last: str,
    low: str,
    high: str,
    label: str,
) -> Chart:
    """Return the chart of pairs (wall time, number), oldest first: across by time, up by number."""
    times = [(at - values[0][0]).total_seconds() for at, _ in values]
    xs = _spread(times, WIDTH, from_left=True)
    ys = _spread([value for _, value in values], HEIGHT, from_left=False)
    return Chart(list(zip(xs, ys, strict=True)), first, last, low, high, label)


def line(values: Sequence[float]) -> str:
    """Return numbers as an SVG polyline: at even distances, from zero up."""
    # Zero and, if all numbers are 0, a 1 belong to the scale, but not to the line.
    xs = _spread([float(index) for index in range(len(values))], WIDTH, from_left=True)
    ys = _spread([0.0, *values, max(values) or 1.0], HEIGHT, from_left=False)[1:-1]
    return " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True))


def _spread(numbers: Sequence[float], size: int, *, from_left: bool) -> list[float]:
    """Return where numbers lie on a side of `size` pixels. An SVG's y grows downwards."""
    low = min(numbers)
    high = max(numbers)
    places = []
    for number in numbers:
        share = (number - low) / (high - low) if high > low else 0.5
        if not from_left:
            share = 1 - share
        places.append(round(EDGE + (size - 2 * EDGE) * share, 1))
    return places

"""Repeated numbers as the points of a small line. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT, EDGE = 320, 72, 6


@dataclass(frozen=True, slots=True)
class Chart:
    """`points` lie in WIDTH x HEIGHT; the texts say what is at the line's ends."""

    points: list[tuple[float, float]]
    first: str
    last: str
    low: str
    high: str
    label: str

    @property
    def line(self) -> str:
        """For an SVG polyline."""
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
    """Of (wall time, number), oldest first: across by time, up by value."""
    times = [(at - values[0][0]).total_seconds() for at, _ in values]
    xs = _spread(times, WIDTH, from_left=True)
    ys = _spread([value for _, value in values], HEIGHT, from_left=False)
    return Chart(list(zip(xs, ys, strict=True)), first, last, low, high, label)


def line(values: Sequence[float]) -> str:
    """An SVG polyline of numbers at even distances, from zero up."""
    xs = _spread([float(index) for index in range(len(values))], WIDTH, from_left=True)
    ys = _spread([0.0, *values, max(values) or 1.0], HEIGHT, from_left=False)[1:-1]
    return " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True))


def _spread(numbers: Sequence[float], size: int, *, from_left: bool) -> list[float]:
    low, high = min(numbers), max(numbers)
    room = size - 2 * EDGE
    shares = [(one - low) / (high - low) if high > low else 0.5 for one in numbers]
    return [round(EDGE + room * (share if from_left else 1 - share), 1) for share in shares]

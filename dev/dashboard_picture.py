"""Draws the dashboard's main panels from a running Prometheus: ``python -m dev.dashboard_picture
URL RUN``.

Titles, queries, units and scales are those of deploy/grafana/passport.json; RUN is what
``dev.dashboard_run`` wrote.
"""

import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import httpx

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "deploy/grafana/passport.json"
PICTURE = ROOT / "docs/how-to/dashboard.svg"
PANELS = (1, 2, 3, 4, 5, 6)  # ids: the first rows, what operators look at first
COLUMNS = 2
WIDTH, HEIGHT, GAP = 452, 224, 12  # of a panel with its frame, px
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 74, 30  # from the frame to what is drawn in
HOSPITALS = ("#0072b2", "#d55e00", "#009e73", "#7a5195")  # by partition
OUTCOMES = {
    "stored": "#009e73",
    "unmatched": "#7a5195",
    "unchanged": "#777",
    "stale": "#b8860b",
    "rejected": "#d00000",
}
DASHES = ("", "5 3", "1.5 3")
STYLE = """
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #333 }
.title { font-size: 13.5px; font-weight: 600; fill: #111 }
.grid { stroke: #e4e4e4 } .event { stroke: #999; stroke-dasharray: 2 3 }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round }
.alert { fill: #d00000; opacity: .13 } .mark { fill: #555 } .on { opacity: .8 }
.number { fill: #fff; font-size: 9.5px; font-weight: 600 }
"""


class Series(NamedTuple):
    """`points`: (seconds from the run's start, value)."""

    name: str
    colour: str
    dash: str
    points: Sequence[tuple[float, float]]


class Scale(NamedTuple):
    """From values to px, over `length` px from `start`."""

    low: float
    high: float
    start: float
    length: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        if self.is_log:
            share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * self.length

    def ticks(self) -> list[float]:
        if self.is_log:
            exponents = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            return [10.0**exponent for exponent in exponents]
        step = nice(self.high / 4)
        return [number * step for number in range(int(self.high / step + 1e-9) + 1)]


def main(url: str, run: Path) -> int:
    known = json.loads(run.read_text(encoding="utf-8"))
    PICTURE.write_text(drawn(url, known), encoding="utf-8")
    return 0


def panels() -> list[dict[str, Any]]:
    """Of the dashboard, those that are drawn."""
    every = {one["id"]: one for one in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]}
    return [every[number] for number in PANELS]


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def drawn(url: str, run: dict[str, Any]) -> str:
    """The picture, as SVG."""
    firing = alerts(url, run)
    groups = []
    for number, panel in enumerate(panels()):
        x = GAP + number % COLUMNS * (WIDTH + GAP)
        y = GAP + number // COLUMNS * (HEIGHT + GAP)
        inside = "\n".join(panel_parts(panel, answers(url, panel, run), firing, run))
        told = f'data-title="{escape(panel["title"])}" data-queries="{escape(" ".join(queries(panel)))}"'
        groups.append(f'<g transform="translate({x} {y})" {told}>\n{inside}\n</g>')
    caption_at = GAP + (len(PANELS) + 1) // COLUMNS * (HEIGHT + GAP) + 14
    words = [*caption(run, firing)]
    width, height = GAP + COLUMNS * (WIDTH + GAP), caption_at + len(words) * 19
    lines = [
        f'<g transform="translate({GAP + 4} {caption_at + row * 19})">{one}</g>'
        for row, one in enumerate(words)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    back = f'<rect width="{width}" height="{height}" rx="8" fill="#f6f6f4"/>'
    title = "<title>The dashboard's main panels during a run with faults</title>"
    return (
        "\n".join([head, title, f"<style>{STYLE}</style>", back, *groups, *lines, "</svg>"]) + "\n"
    )


def asked(url: str, query: str, run: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer's series. HTTPError."""
    span = {"query": query, "start": run["start"], "end": run["end"], "step": run["step"]}
    answer = httpx.get(f"{url}/api/v1/query_range", params=span, timeout=30).raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def answers(url: str, panel: dict[str, Any], run: dict[str, Any]) -> list[Series]:
    """With Grafana's variables as it would set them: all hospitals, a rate over four scrapes."""
    found = []
    for target in panel["targets"]:
        query = (
            target["expr"]
            .replace("$hospital", ".*")
            .replace("$__rate_interval", f"{4 * run['step']}s")
        )
        found += [(target, one["metric"], one["values"]) for one in asked(url, query, run)]
    found.sort(key=lambda one: (order_of(one[1], run), name_of(one[0], one[1])))
    series: list[Series] = []
    for target, labels, values in found:
        colour = colour_of(labels, run)
        dash = DASHES[sum(one.colour == colour for one in series)]
        points = [(at - run["start"], float(value)) for at, value in values]
        series.append(Series(name_of(target, labels), colour, dash, points))
    return series


def name_of(target: dict[str, Any], labels: dict[str, str]) -> str:
    name: str = target["legendFormat"]
    for label, value in labels.items():
        name = name.replace("{{" + label + "}}", value)
    return name


def colour_of(labels: dict[str, str], run: dict[str, Any]) -> str:
    """A hospital has one in every panel, and so has its partition."""
    return OUTCOMES[labels["outcome"]] if "outcome" in labels else HOSPITALS[order_of(labels, run)]


def order_of(labels: dict[str, str], run: dict[str, Any]) -> int:
    if "hospital" in labels:
        return int(run["hospitals"].index(labels["hospital"]))
    return (
        int(labels["partition"]) if "partition" in labels else [*OUTCOMES].index(labels["outcome"])
    )


def alerts(url: str, run: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What fired: (name, from, to) in seconds from the start."""
    found = asked(url, 'ALERTS{alertstate="firing"}', run)
    spans = [
        (one["metric"]["alertname"], one["values"][0][0], one["values"][-1][0]) for one in found
    ]
    return [(name, first - run["start"], last - run["start"]) for name, first, last in spans]


def panel_parts(
    panel: dict[str, Any],
    series: Sequence[Series],
    firing: Sequence[tuple[str, float, float]],
    run: dict[str, Any],
) -> Iterator[str]:
    x = Scale(0, run["end"] - run["start"], LEFT, WIDTH - LEFT - RIGHT)
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" rx="5" fill="#fff" stroke="#ddd"/>'
    yield f'<text class="title" x="12" y="21">{escape(panel["title"])}</text>'
    for _, first, last in firing:
        size = f'width="{x(last) - x(first):.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        yield f'<rect class="alert" x="{x(first):.1f}" y="{TOP}" {size}/>'
    yield from time_axis(x)
    yield from marks(x, run)
    yield from (
        bars(series, x, run["step"])
        if panel["type"] == "stat"
        else lines(panel, series, x, run["step"])
    )


def lines(panel: dict[str, Any], series: Sequence[Series], x: Scale, step: float) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    is_log = defaults.get("custom", {}).get("scaleDistribution", {}).get("type") == "log"
    y = vertical(
        [value for one in series for _, value in one.points if math.isfinite(value)], is_log
    )
    yield from legend(series)
    for value in y.ticks():
        said = with_unit(value, defaults["unit"])
        yield f'<path class="grid" d="M{x.start} {y(value):.1f}h{x.length}"/>'
        yield f'<text x="{LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{said}</text>'
    yield from (path(one, x, y, step) for one in series)


def bars(series: Sequence[Series], x: Scale, step: float) -> Iterator[str]:
    """What is 1 or 0, over time: a bar while it is 1."""
    high = 18
    for number, one in enumerate(series):
        y = TOP + (number + 0.5) * (HEIGHT - TOP - BOTTOM) / len(series)
        yield f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(one.name)}</text>'
        for first, last in spells([at for at, value in one.points if value == 1], step):
            size = f'width="{x(last) - x(first):.1f}" height="{high}"'
            yield f'<rect class="on" x="{x(first):.1f}" y="{y - high / 2:.1f}" {size} fill="{one.colour}"/>'


def spells(times: Sequence[float], step: float) -> Iterator[tuple[float, float]]:
    """First and last of each run of times without a gap."""
    breaks = [
        0,
        *(n for n in range(1, len(times)) if times[n] - times[n - 1] > 1.5 * step),
        len(times),
    ]
    yield from ((times[first], times[end - 1]) for first, end in itertools.pairwise(breaks))


def vertical(values: Sequence[float], is_log: bool) -> Scale:
    """From the panel's foot up."""
    foot, length = HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM)
    if is_log:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return Scale(10.0**low, 10.0**high, foot, length, True)
    step = nice(max(values) / 4)
    return Scale(0, math.ceil(max(values) / step - 1e-9) * step, foot, length)


def nice(value: float) -> float:
    """1, 2 or 5 times a power of ten, not less than `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value - 1e-12)


def time_axis(x: Scale) -> Iterator[str]:
    last = int(x.high // 60)
    for minute in range(last + 1):
        said = f"{minute} min" if minute == last else f"{minute}"
        yield f'<text x="{x(minute * 60):.1f}" y="{HEIGHT - 11}" text-anchor="middle">{said}</text>'


def with_unit(value: float, unit: str) -> str:
    """As Grafana writes it: s, ops (a second), short (a number)."""
    if unit == "s":
        return f"{value:g} s"
    number = f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
    return f"{number}/s" if unit == "ops" else number


def marks(x: Scale, run: dict[str, Any]) -> Iterator[str]:
    for number, (at, _) in enumerate(run["events"], 1):
        place = x(at - run["start"])
        yield f'<path class="event" d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield mark(number, place, TOP - 6)


def mark(number: int, x: float, y: float) -> str:
    text = (
        f'<text class="number" x="{x:.1f}" y="{y + 3.4:.1f}" text-anchor="middle">{number}</text>'
    )
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>{text}'


def legend(series: Sequence[Series]) -> Iterator[str]:
    """In as many rows as it needs, of as many names each; two have room."""
    widths = [34 + 6.7 * len(one.name) for one in series]
    in_a_row = math.ceil(len(series) / math.ceil(sum(widths) / (WIDTH - 24)))
    for row in range(0, len(series), in_a_row):
        x, y = 12.0, 38 + 16 * (row // in_a_row)
        for one, width in zip(series[row : row + in_a_row], widths[row:], strict=False):
            yield f'<path class="line" stroke="{one.colour}" stroke-dasharray="{one.dash}" d="M{x:.0f} {y - 4}h17"/>'
            yield f'<text x="{x + 21:.0f}" y="{y}">{escape(one.name)}</text>'
            x += width


def path(series: Series, x: Scale, y: Scale, step: float) -> str:
    """A line with gaps where there is no value."""
    parts, before = [], -math.inf
    for at, value in series.points:
        if math.isfinite(value):
            parts.append(f"{'L' if at - before < 1.5 * step else 'M'}{x(at):.1f} {y(value):.1f}")
            before = at
    return f'<path class="line" stroke="{series.colour}" stroke-dasharray="{series.dash}" d="{"".join(parts)}"/>'


def caption(run: dict[str, Any], firing: Sequence[tuple[str, float, float]]) -> Iterator[str]:
    """A line for each two events, and one for what fired."""
    told = [
        f'{mark(number, 7, -4)}<text x="20" y="0">{clock(at - run["start"])} {escape(words)}</text>'
        for number, (at, words) in enumerate(run["events"], 1)
    ]
    for name, first, last in firing:
        words = f"{clock(first)} to {clock(last)} {name} fires"
        told.append(
            f'<rect class="alert" x="0" y="-11" width="14" height="14"/><text x="20" y="0">{words}</text>'
        )
    half = (len(told) + 1) // 2
    for row in range(half):
        rest = [
            f'<g transform="translate({WIDTH + GAP} 0)">{one}</g>'
            for one in told[row + half : row + half + 1]
        ]
        yield told[row] + "".join(rest)


def clock(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))

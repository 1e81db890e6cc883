"""``python -m dev.dashboard_picture URL RUN`` draws the dashboard's main panels.

URL is a running Prometheus, and RUN the file that ``dev.dashboard_run`` wrote. Titles, queries,
units and scales are those of deploy/grafana/passport.json.
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
    """A line of a panel. `points` are (seconds from the run's start, value)."""

    name: str
    colour: str
    dash: str
    points: Sequence[tuple[float, float]]


class Scale(NamedTuple):
    """Turns values into px, over `length` px from `start`."""

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
        """Return the values at which the scale has a line."""
        if self.is_log:
            exponents = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            return [10.0**exponent for exponent in exponents]
        step = nice(self.high / 4)
        return [number * step for number in range(int(self.high / step + 1e-9) + 1)]


def main(url: str, run: Path) -> int:
    """Write the picture of the run; return the exit code."""
    facts = json.loads(run.read_text(encoding="utf-8"))
    PICTURE.write_text(picture(url, facts), encoding="utf-8")
    return 0


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that are drawn."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    by_id = {panel["id"]: panel for panel in dashboard["panels"]}
    return [by_id[number] for number in PANELS]


def queries(panel: dict[str, Any]) -> list[str]:
    """Return the panel's queries, with Grafana's variables in them."""
    return [target["expr"] for target in panel["targets"]]


def picture(url: str, run: dict[str, Any]) -> str:
    """Return the picture, as SVG."""
    firing = alerts(url, run)
    groups = []
    for number, panel in enumerate(panels()):
        x = GAP + number % COLUMNS * (WIDTH + GAP)
        y = GAP + number // COLUMNS * (HEIGHT + GAP)
        inside = "\n".join(panel_parts(panel, answers(url, panel, run), firing, run))
        # A test compares these with the dashboard.
        title = f'data-title="{escape(panel["title"])}"'
        asked_for = f'data-queries="{escape(" ".join(queries(panel)))}"'
        groups.append(f'<g transform="translate({x} {y})" {title} {asked_for}>\n{inside}\n</g>')
    caption_y = GAP + (len(PANELS) + 1) // COLUMNS * (HEIGHT + GAP) + 14
    rows = list(caption(run, firing))
    for number, row in enumerate(rows):
        groups.append(f'<g transform="translate({GAP + 4} {caption_y + number * 19})">{row}</g>')
    width = GAP + COLUMNS * (WIDTH + GAP)
    height = caption_y + len(rows) * 19
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>The dashboard's main panels during a run with faults</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#f6f6f4"/>',
        *groups,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def query_range(url: str, query: str, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the series that Prometheus answers over the whole run. Raises httpx.HTTPError."""
    span = {"query": query, "start": run["start"], "end": run["end"], "step": run["step"]}
    answer = httpx.get(f"{url}/api/v1/query_range", params=span, timeout=30).raise_for_status()
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


def answers(url: str, panel: dict[str, Any], run: dict[str, Any]) -> list[Series]:
    """Return the panel's series, sorted by hospital.

    Grafana's variables are set as it would set them: all hospitals, a rate over four scrapes.
    """
    answered = []
    for target in panel["targets"]:
        query = target["expr"].replace("$hospital", ".*")
        query = query.replace("$__rate_interval", f"{4 * run['step']}s")
        for answer in query_range(url, query, run):
            labels = answer["metric"]
            answered.append(
                (order_of(labels, run), name_of(target, labels), labels, answer["values"])
            )
    answered.sort(key=lambda line: line[:2])
    series: list[Series] = []
    for _, name, labels, values in answered:
        colour = colour_of(labels, run)
        # Lines of one hospital differ in their dashes.
        dash = DASHES[sum(line.colour == colour for line in series)]
        points = [(at - run["start"], float(value)) for at, value in values]
        series.append(Series(name, colour, dash, points))
    return series


def name_of(target: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the name in the legend, as Grafana makes it of the labels."""
    name: str = target["legendFormat"]
    for label, value in labels.items():
        name = name.replace("{{" + label + "}}", value)
    return name


def colour_of(labels: dict[str, str], run: dict[str, Any]) -> str:
    """Return a series' colour. A hospital has one in every panel, and so has its partition."""
    if "outcome" in labels:
        return OUTCOMES[labels["outcome"]]
    return HOSPITALS[order_of(labels, run)]


def order_of(labels: dict[str, str], run: dict[str, Any]) -> int:
    """Return a series' place among those of its panel."""
    if "hospital" in labels:
        return int(run["hospitals"].index(labels["hospital"]))
    if "partition" in labels:
        return int(labels["partition"])
    return list(OUTCOMES).index(labels["outcome"])


def alerts(url: str, run: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return what fired, as (name, from, to) in seconds from the start."""
    fired = []
    for series in query_range(url, 'ALERTS{alertstate="firing"}', run):
        first = series["values"][0][0] - run["start"]
        last = series["values"][-1][0] - run["start"]
        fired.append((series["metric"]["alertname"], first, last))
    return fired


def panel_parts(
    panel: dict[str, Any],
    series: Sequence[Series],
    firing: Sequence[tuple[str, float, float]],
    run: dict[str, Any],
) -> Iterator[str]:
    """Yield a panel: its frame, alerts, axis, events, and what is measured."""
    x = Scale(0, run["end"] - run["start"], LEFT, WIDTH - LEFT - RIGHT)
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" rx="5" fill="#fff" stroke="#ddd"/>'
    yield f'<text class="title" x="12" y="21">{escape(panel["title"])}</text>'
    for _, first, last in firing:
        size = f'width="{x(last) - x(first):.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        yield f'<rect class="alert" x="{x(first):.1f}" y="{TOP}" {size}/>'
    yield from time_axis(x)
    yield from marks(x, run)
    if panel["type"] == "stat":
        yield from bars(series, x, run["step"])
    else:
        yield from lines(panel, series, x, run["step"])


def lines(panel: dict[str, Any], series: Sequence[Series], x: Scale, step: float) -> Iterator[str]:
    """Yield the legend, the grid and a line for each series."""
    defaults = panel["fieldConfig"]["defaults"]
    is_log = defaults.get("custom", {}).get("scaleDistribution", {}).get("type") == "log"
    values = [value for line in series for _, value in line.points if math.isfinite(value)]
    y = vertical(values, is_log)
    yield from legend(series)
    for value in y.ticks():
        text = with_unit(value, defaults["unit"])
        yield f'<path class="grid" d="M{x.start} {y(value):.1f}h{x.length}"/>'
        yield f'<text x="{LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>'
    for line in series:
        yield path(line, x, y, step)


def bars(series: Sequence[Series], x: Scale, step: float) -> Iterator[str]:
    """Yield what is 1 or 0 over time: a bar while it is 1."""
    high = 18
    for number, line in enumerate(series):
        y = TOP + (number + 0.5) * (HEIGHT - TOP - BOTTOM) / len(series)
        yield f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(line.name)}</text>'
        for first, last in spells([at for at, value in line.points if value == 1], step):
            place = f'x="{x(first):.1f}" y="{y - high / 2:.1f}"'
            size = f'width="{x(last) - x(first):.1f}" height="{high}"'
            yield f'<rect class="on" {place} {size} fill="{line.colour}"/>'


def spells(times: Sequence[float], step: float) -> Iterator[tuple[float, float]]:
    """Yield the first and the last of each run of times without a gap."""
    gaps = [n for n in range(1, len(times)) if times[n] - times[n - 1] > 1.5 * step]
    for first, end in itertools.pairwise([0, *gaps, len(times)]):
        yield times[first], times[end - 1]


def vertical(values: Sequence[float], is_log: bool) -> Scale:
    """Return the scale of these values, from the panel's foot up."""
    foot = HEIGHT - BOTTOM
    length = -(HEIGHT - TOP - BOTTOM)
    if is_log:
        low = math.floor(math.log10(min(values)))
        high = math.ceil(math.log10(max(values)))
        return Scale(10.0**low, 10.0**high, foot, length, True)
    step = nice(max(values) / 4)
    return Scale(0, math.ceil(max(values) / step - 1e-9) * step, foot, length)


def nice(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not less than `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value - 1e-12)


def time_axis(x: Scale) -> Iterator[str]:
    """Yield a number for each minute, the last with its unit."""
    last = int(x.high // 60)
    for minute in range(last + 1):
        text = f"{minute} min" if minute == last else f"{minute}"
        yield f'<text x="{x(minute * 60):.1f}" y="{HEIGHT - 11}" text-anchor="middle">{text}</text>'


def with_unit(value: float, unit: str) -> str:
    """Return the value as Grafana writes it: s, ops (a second), short (a number)."""
    if unit == "s":
        return f"{value:g} s"
    number = f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
    return f"{number}/s" if unit == "ops" else number


def marks(x: Scale, run: dict[str, Any]) -> Iterator[str]:
    """Yield a line and a number for each event of the run."""
    for number, (at, _) in enumerate(run["events"], 1):
        place = x(at - run["start"])
        yield f'<path class="event" d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield mark(number, place, TOP - 6)


def mark(number: int, x: float, y: float) -> str:
    """Return the number of an event in its disc."""
    text = (
        f'<text class="number" x="{x:.1f}" y="{y + 3.4:.1f}" text-anchor="middle">{number}</text>'
    )
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>{text}'


def legend(series: Sequence[Series]) -> Iterator[str]:
    """Yield the names, in as many rows as they need, of as many names each; two have room."""
    widths = [34 + 6.7 * len(line.name) for line in series]
    in_a_row = math.ceil(len(series) / math.ceil(sum(widths) / (WIDTH - 24)))
    for row in range(0, len(series), in_a_row):
        x = 12.0
        y = 38 + 16 * (row // in_a_row)
        for line, width in zip(series[row : row + in_a_row], widths[row:], strict=False):
            yield stroke(line, f"M{x:.0f} {y - 4}h17")
            yield f'<text x="{x + 21:.0f}" y="{y}">{escape(line.name)}</text>'
            x += width


def stroke(series: Series, d: str) -> str:
    """Return the path `d` in the colour and the dashes of the series."""
    look = f'stroke="{series.colour}" stroke-dasharray="{series.dash}"'
    return f'<path class="line" {look} d="{d}"/>'


def path(series: Series, x: Scale, y: Scale, step: float) -> str:
    """Return a line with gaps where there is no value."""
    parts = []
    before = -math.inf
    for at, value in series.points:
        if math.isfinite(value):
            command = "L" if at - before < 1.5 * step else "M"
            parts.append(f"{command}{x(at):.1f} {y(value):.1f}")
            before = at
    return stroke(series, "".join(parts))


def caption(run: dict[str, Any], firing: Sequence[tuple[str, float, float]]) -> Iterator[str]:
    """Yield the rows of the caption: what happened and what fired, in two columns."""
    entries = []
    for number, (at, words) in enumerate(run["events"], 1):
        text = f"{clock(at - run['start'])} {escape(words)}"
        entries.append(f'{mark(number, 7, -4)}<text x="20" y="0">{text}</text>')
    sign = '<rect class="alert" x="0" y="-11" width="14" height="14"/>'
    for name, first, last in firing:
        text = f"{clock(first)} to {clock(last)} {name} fires"
        entries.append(f'{sign}<text x="20" y="0">{text}</text>')
    half = (len(entries) + 1) // 2
    for left, right in itertools.zip_longest(entries[:half], entries[half:], fillvalue=""):
        row = left
        if right:
            row += f'<g transform="translate({WIDTH + GAP} 0)">{right}</g>'
        yield row


def clock(seconds: float) -> str:
    """Return minutes and seconds, as 3:05."""
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))

"""Draws a run as SVG: a panel for each figure, bars with their spread, or lines where a case has several N. Pure."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from netns_lab.bench.figures import Series, format_value
from netns_lab.bench.results import Run
from netns_lab.bench.summary import CHIEF

WIDTH, HEIGHT = 380, 250  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 40  # its margins
COLUMNS = 3
HEAD = 62
TICKS = 5
COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5")
GREY, TEXT = "#cbd5e0", "#1a202c"


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of a case, for all subjects and sizes."""

    title: str
    unit: str
    series: tuple[Series, ...]

    @property
    def sizes(self) -> list[int]:
        """All N that there are."""
        return sorted({series.n for series in self.series})


def draw_run(run: Run) -> str:
    """Return the picture."""
    panels = find_panels(run)
    subjects = list(dict.fromkeys(series.subject for panel in panels for series in panel.series))
    colours = {subject: COLOURS[index % len(COLOURS)] for index, subject in enumerate(subjects)}
    columns = max(1, min(COLUMNS, len(panels)))
    width, height = columns * WIDTH, HEAD + math.ceil(len(panels) / columns) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<g font-family="sans-serif" font-size="11" fill="{TEXT}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *draw_head(run, colours),
    ]
    for index, panel in enumerate(panels):
        x, y = index % columns * WIDTH, HEAD + index // columns * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *draw_panel(panel, colours), "</g>"]
    return "\n".join([*parts, "</g>", "</svg>\n"])


def find_panels(run: Run) -> list[Panel]:
    """Return all figures of a single case, of several cases the chief ones."""
    several = len({outcome.case for outcome in run.outcomes}) > 1
    grouped: dict[tuple[str, str, str], list[Series]] = {}
    for outcome in run.outcomes:
        for series in outcome.series:
            if not several or series.figure in dict(CHIEF).get(outcome.case, ()):
                grouped.setdefault((outcome.case, series.figure, series.unit), []).append(series)
    return [Panel(f"{case}: {figure}", unit, tuple(series)) for (case, figure, unit), series in grouped.items()]


def draw_head(run: Run, colours: dict[str, str]) -> list[str]:
    """Draw where and when, and which colour is whose."""
    parts = [draw_text(16, 20, f"{run.date}, {run.machine}")]
    x = 16
    for subject, colour in colours.items():
        parts += [f'<rect x="{x}" y="34" width="12" height="12" fill="{colour}"/>', draw_text(x + 18, 44, subject)]
        x += 18 + 8 * len(subject) + 16
    return parts


def draw_panel(panel: Panel, colours: dict[str, str]) -> list[str]:
    """Draw one figure."""
    ticks = nice_ticks(max(series.high for series in panel.series))
    floor = HEIGHT - BOTTOM

    def to_y(value: float) -> float:
        return floor - value / ticks[-1] * (floor - TOP)

    title = f"{panel.title}, {panel.unit}".rstrip(", ")
    parts = [draw_text(12, 24, title, 'font-weight="bold"')]
    for tick in ticks:
        y = to_y(tick)
        parts.append(draw_line(LEFT, y, WIDTH - RIGHT, y, GREY))
        parts.append(draw_text(LEFT - 6, y + 4, format_tick(tick), 'text-anchor="end"'))
    draw = draw_lines if len(panel.sizes) > 1 else draw_bars
    return parts + list(draw(panel, colours, to_y))


def draw_bars(panel: Panel, colours: dict[str, str], to_y: Callable[[float], float]) -> Iterable[str]:
    """Draw a bar for each subject, with a stroke from the smallest to the largest value."""
    slot = (WIDTH - LEFT - RIGHT) / len(panel.series)
    for index, series in enumerate(panel.series):
        middle, y = LEFT + slot * (index + 0.5), to_y(series.median)
        width = min(70.0, slot * 0.6)
        yield (
            f'<rect x="{middle - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{to_y(0) - y:.1f}" '
            f'fill="{colours[series.subject]}"/>'
        )
        yield from draw_spread(middle, series, to_y)
        yield draw_text(middle, HEIGHT - BOTTOM + 16, format_value(series.median), 'text-anchor="middle"')
    if panel.sizes[0]:
        yield draw_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, f"N = {panel.sizes[0]:,}", 'text-anchor="middle"')


def draw_lines(panel: Panel, colours: dict[str, str], to_y: Callable[[float], float]) -> Iterable[str]:
    """Draw a line over N for each subject."""

    def to_x(n: int) -> float:
        return LEFT + n / panel.sizes[-1] * (WIDTH - LEFT - RIGHT)

    for subject, colour in colours.items():
        own = sorted((series for series in panel.series if series.subject == subject), key=lambda each: each.n)
        points = " ".join(f"{to_x(series.n):.1f},{to_y(series.median):.1f}" for series in own)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for series in own:
            x = to_x(series.n)
            yield f'<circle cx="{x:.1f}" cy="{to_y(series.median):.1f}" r="3.5" fill="{colour}"/>'
            yield from draw_spread(x, series, to_y)
    last = -math.inf
    for n in panel.sizes:
        if to_x(n) - last > 36:  # else the labels would run into each other
            last = to_x(n)
            yield draw_text(last, HEIGHT - BOTTOM + 16, f"{n:,}", 'text-anchor="middle"')
    yield draw_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "N", 'text-anchor="middle"')


def draw_spread(x: float, series: Series, to_y: Callable[[float], float]) -> Iterable[str]:
    """Draw a stroke with caps over the range of the values."""
    if len(series.values) > 1:
        low, high = to_y(series.low), to_y(series.high)
        yield draw_line(x, low, x, high, TEXT)
        for y in (low, high):
            yield draw_line(x - 5, y, x + 5, y, TEXT)


def draw_line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """Draw a thin line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def draw_text(x: float, y: float, text: str, attributes: str = "") -> str:
    """Write a text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def nice_ticks(highest: float) -> Sequence[float]:
    """Return even steps from 0 to at least `highest`."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * index for index in range(math.ceil(highest / step - 1e-9) + 1)]


def format_tick(value: float) -> str:
    """Write a tick without digits that say nothing."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.6g}"

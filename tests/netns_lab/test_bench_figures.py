import json
import statistics
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_lab.bench.figures import Reading, Series, format_spread, format_value, gather, percentile
from netns_lab.bench.plot import draw_run, find_panels, nice_ticks
from netns_lab.bench.results import Outcome, Run, decode_outcome, encode_outcome, encode_run
from netns_lab.bench.summary import CHIEF, summary_text
from netns_lab.bench.table import markdown_table, outcome_text, quotient

SVG = "{http://www.w3.org/2000/svg}"


def parse(picture):
    return ET.fromstring(picture)  # noqa: S314 - our own writing


def outcome(case="cold", n=10, subjects=("ours 1", "theirs 2"), notes=()):
    series = tuple(
        Series(case, n, subject, figure, unit, values)
        for factor, subject in enumerate(subjects, 1)
        for figure, unit, values in (
            ("exec → all programmed", "s", (1.0 * factor, 3.0 * factor, 2.0 * factor)),
            ("CPU", "s", (0.5 * factor,)),
        )
    )
    return Outcome(case, n, "what it measures", subjects, series, notes)


def run(*outcomes):
    return Run("2026-01-01 00:00 UTC", "2 cores", ("ours 1", "theirs 2"), outcomes)


def test_readings_are_gathered_by_figure_in_their_order():
    rounds = [[Reading("b", "s", 1), Reading("a", "MB", 5)], [Reading("b", "s", 2), Reading("a", "MB", 7)]]
    assert gather("cold", 3, "x", rounds) == [
        Series("cold", 3, "x", "b", "s", (1, 2)),
        Series("cold", 3, "x", "a", "MB", (5, 7)),
    ]


def test_median_and_spread():
    series = Series("cold", 3, "x", "b", "s", (3.0, 1.0, 20.0))
    assert (series.median, series.low, series.high) == (3.0, 1.0, 20.0)
    assert format_spread(series) == "3 (1 to 20)"


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_values_that_were_measured(values):
    assert percentile(values, 1) == max(values)
    assert percentile(values, 0) == min(values)
    assert percentile(values, 0.5) == statistics.median_low(values)
    assert sum(value <= percentile(values, 0.99) for value in values) >= 0.99 * len(values)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.0, "3"),
        (12345.6, "12,346"),
        (999.4, "999"),
        (6.634, "6.63"),
        (0.0244, "0.0244"),
        (0.00012345, "0.000123"),
    ],
)
def test_three_digits_say_something(value, text):
    assert format_value(value) == text


def test_a_quotient_that_says_nothing_is_a_dash():
    assert [quotient(6, 3), quotient(6, 0), quotient(None, 3), quotient(6, None)] == ["2", "-", "-", "-"]


def test_tables_are_markdown():
    lines = markdown_table([["a", "bb"], ["ccc", "d"]]).splitlines()
    assert lines == ["| a   | bb |", "|-----|----|", "| ccc | d  |"]


def test_an_outcome_shows_every_figure_and_note():
    text = outcome_text(outcome(notes=("theirs 2 has no such mode",)))
    assert "median (smallest to largest) of 3 rounds" in text
    assert "| exec → all programmed | s    | 2 (1 to 3) | 4 (2 to 6) | 2 " in text
    assert text.endswith("Note: theirs 2 has no such mode")


def test_outcomes_survive_json():
    before = outcome(notes=("a note",))
    assert decode_outcome(json.loads(json.dumps(encode_outcome(before)))) == before
    assert json.loads(json.dumps(encode_run(run(before))))["subjects"] == ["ours 1", "theirs 2"]


def test_one_case_needs_no_summary():
    assert summary_text(run(outcome(), outcome(n=20))) == "2026-01-01 00:00 UTC, 2 cores"


def test_the_summary_has_a_row_for_each_chief_figure():
    alone = Outcome("fleet", 7, "", ("etcd 3",), (Series("fleet", 7, "etcd 3", dict(CHIEF)["fleet"][0], "ms", (9.0,)),))
    rows = [line for line in summary_text(run(outcome(), alone)).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells == [
        ["case", "figure", "ours 1", "theirs 2", "second ÷ first"],
        ["cold, N = 10", "exec → all programmed, s", "2 (1 to 3)", "4 (2 to 6)", "2"],
        ["cold, N = 10", "CPU, s", "0.500", "1", "2"],
        ["fleet, N = 7", "put → the last watcher, ms", "9", "-", "-"],
    ]


def test_a_plot_is_well_formed_with_bars_for_one_size():
    picture = parse(draw_run(run(outcome(subjects=("ours <&> 1", "theirs 2")))))
    bars = [rect for rect in picture.iter(f"{SVG}rect") if float(rect.get("height")) > 12]
    assert len(bars) == 1 + 4  # the ground, and two figures of two subjects
    assert not list(picture.iter(f"{SVG}polyline"))
    assert "ours <&> 1" in {text.text for text in picture.iter(f"{SVG}text")}


def test_a_plot_draws_lines_for_several_sizes():
    picture = parse(draw_run(run(outcome(n=10), outcome(n=1000))))
    assert len(list(picture.iter(f"{SVG}polyline"))) == 4
    width, height = float(picture.get("width")), float(picture.get("height"))
    for circle in picture.iter(f"{SVG}circle"):
        assert 0 < float(circle.get("cx")) < width
        assert 0 < float(circle.get("cy")) < height


def test_a_plot_of_several_cases_shows_the_chief_figures():
    start = Outcome("start", 2, "", ("x",), (Series("start", 2, "x", "proportional", "MB", (1.0,)),))
    assert [panel.title for panel in find_panels(run(outcome(), start))] == [
        "cold: exec → all programmed",
        "cold: CPU",
    ]


def test_a_run_without_figures_can_be_drawn():
    parse(draw_run(run()))


@given(st.just(0.0) | st.floats(1e-9, 1e9))
def test_ticks_reach_from_nothing_to_the_highest(highest):
    ticks = nice_ticks(highest)
    assert ticks[0] == 0
    assert ticks[-1] >= highest * (1 - 1e-6)
    assert 2 <= len(ticks) <= 7

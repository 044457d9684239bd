import os
import time
from pathlib import Path

from netns_lab.bench.cases.miss import pick_numbers
from netns_lab.bench.cases.stream import judge
from netns_lab.bench.daemon import (
    parse_cpu_seconds,
    parse_kilobytes,
    read_process_cost,
    read_thread_times,
    seconds_between,
)


def test_memory_is_read_in_kilobytes():
    assert parse_kilobytes("Name:\tx y kB z\nVmHWM:\t  40960 kB\nThreads:\t3\nVmRSS:\t 2048 kB\n") == {
        "VmHWM": 40960,
        "VmRSS": 2048,
    }


def test_cpu_is_read_behind_any_name():
    before = "77 (a) b (c) S " + " ".join(str(number) for number in range(4, 14))
    assert parse_cpu_seconds(f"{before} 150 50 9 9", 100) == 2.0


def test_our_own_cost_is_plausible():
    spent = time.process_time()
    cost = read_process_cost(os.getpid())
    assert abs(cost.cpu - spent) < 1
    assert 1 < cost.proportional <= cost.resident <= cost.peak
    assert Path("/proc/self/status").exists()


def test_the_time_of_threads_is_read_finely():
    before = read_thread_times(os.getpid())
    while seconds_between(before, read_thread_times(os.getpid())) < 0.002:
        pass
    assert seconds_between({1: 5, 2: 7}, {1: 1_000_000_005, 3: 500_000_000}) == 1.5


def test_losses_and_silences_are_told_for_both_ways():
    there = [(0, 10.0), (1, 10.01), (3, 10.5)]
    back = [(3, 10.04), (0, 10.0), (1, 10.01), (2, 10.02)]
    losses = judge([there, back], 4)
    assert (losses.sent, losses.lost) == (8, 1)
    assert round(losses.silence, 3) == 0.49
    assert judge([[], []], 0).lost == 0


def test_first_packets_are_spread_over_all_leases():
    assert pick_numbers(10, 1000) == list(range(10))
    assert pick_numbers(0, 1000) == []
    chosen = pick_numbers(100_000, 1000)
    assert len(set(chosen)) == 1000
    assert chosen[1] == 100
    assert chosen[-1] == 99_900

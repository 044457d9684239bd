"""When new ends are announced; the kernel's part is that of tests/cni_plugin/test_cni_announced.py."""

import queue

import pytest

from flanneld_py.agent import pod_herald
from flanneld_py.agent.pod_herald import PodHerald
from flanneld_py.core.prefix import IPV4, Prefix
from flanneld_py.pods.result import PodAddress

FOREVER = 3600.0
POD = (PodAddress(Prefix(IPV4, 0x0A050200, 24), 0x0A050202, 0x0A050201),)
SECONDS = 20


class End:
    """An end that says when it has been announced."""

    def __init__(self, heard, error=None):
        self._heard = heard
        self._error = error

    def announce(self, pod):
        assert pod is POD
        if self._error:
            raise self._error

    def close(self):
        self._heard.put(self)


@pytest.fixture
def heard():
    return queue.Queue()


def take(herald, *ends):
    for end in ends:
        herald.take(end, POD)


def test_an_end_is_announced_once_no_call_has_come_for_a_while(heard):
    herald = PodHerald()
    ends = [End(heard) for _ in range(3)]
    take(herald, *ends)
    assert [heard.get(timeout=SECONDS) for _ in ends] == ends


def test_calls_put_it_off_until_it_is_due(heard, monkeypatch):
    monkeypatch.setattr(pod_herald, "_PAUSE", FOREVER)
    herald = PodHerald()
    herald.hush()
    end = End(heard)
    take(herald, end)
    assert heard.get(timeout=SECONDS) is end


def test_one_that_ends_announces_all_at_once(heard, monkeypatch):
    monkeypatch.setattr(pod_herald, "_PAUSE", FOREVER)
    monkeypatch.setattr(pod_herald, "_LONGEST", FOREVER)
    herald = PodHerald()
    herald.hush()
    ends = [End(heard) for _ in range(3)]
    take(herald, *ends)
    assert heard.empty()
    herald.close(SECONDS)
    assert [heard.get_nowait() for _ in ends] == ends


def test_one_that_cannot_be_announced_keeps_no_other(heard):
    herald = PodHerald()
    ends = [End(heard, OSError(105, "No buffer space available")), End(heard)]
    take(herald, *ends)
    assert [heard.get(timeout=SECONDS) for _ in ends] == ends
    take(herald, ends[1])  # by another thread, should the first have ended
    assert heard.get(timeout=SECONDS) is ends[1]

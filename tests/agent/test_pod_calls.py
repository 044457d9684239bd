"""What a call does that comes while the devices of former ones are being deleted."""

import json
import threading

import pytest

from flanneld_py.agent import pod_calls, pod_reaper
from flanneld_py.agent.pod_calls import PodCalls
from flanneld_py.agent.pod_request import Request
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError

SECONDS = 20


@pytest.fixture
def deleting(monkeypatch):
    """What lets the reaper go on, which has a device in work until then."""
    gone = threading.Event()
    monkeypatch.setattr(pod_reaper, "_delete", lambda _, devices: devices if gone.wait(SECONDS) else [])
    return gone


def request(verb):
    variables = {"COMMAND": verb, "CONTAINERID": "c2", "NETNS": "/pod", "IFNAME": "eth0", "PATH": "/"}
    environment = {f"CNI_{name}".encode(): value.encode() for name, value in variables.items()}
    return Request(
        environment, json.dumps({"cniVersion": "1.0.0", "name": "n", "type": "flannel"}).encode(), 0, 0, None
    )


@pytest.mark.parametrize(("verb", "tries"), [("ADD", 2), ("CHECK", 1)])
def test_an_add_that_finds_something_in_its_way_is_tried_again(monkeypatch, deleting, verb, tries):
    tried = []

    def perform(*_):
        tried.append(deleting.is_set())
        deleting.set()
        raise CniError(errors.INTERNAL, "the container has a device eth0 already")

    monkeypatch.setattr(pod_calls, "perform", perform)
    monkeypatch.setattr(pod_calls, "_choose_container", lambda *_: None)
    calls = PodCalls(list)
    calls._reaper.take("c1", 1, lambda: None)
    with pytest.raises(CniError, match="already"):
        calls._perform(request(verb))
    assert tried == [False, True][:tries]
    deleting.set()
    calls.leave()

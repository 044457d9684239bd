"""The page of a lab: what it is told, what its buttons do, and how it looks in a browser."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import pytest
from pyroute2 import IPRoute

from tests.netns_lab.topologies import LEFT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

WITHOUT_MAP = 40_000
"""Bytes of a picture of the page before anything is drawn: 20,000; with three nodes it has 80,000."""


class Page:
    """A page that is open: the stream of what it is told."""

    def __init__(self, port):
        self.port = port
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", "/events")
        self.stream = self.connection.getresponse()

    def await_told(self, kind, accept):
        """Return the first that is told of a kind and accepted."""
        while line := self.stream.readline():
            if line.startswith(b"data: "):
                [(told, value)] = json.loads(line.removeprefix(b"data: ")).items()
                if told == kind and accept(value):
                    return value
        raise AssertionError("the stream has ended")

    def await_event(self, place, text):
        return self.await_told("event", lambda event: (event["place"], event["text"]) == (place, text))

    def click(self, fault, target, status=200, **headers):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/faults", json.dumps({"fault": fault, "target": target}), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == status, text
        return text


@pytest.fixture
def port(lab, request):
    """The page's port, for a lab of two nodes, or for the one that comes without a topology."""
    with IPRoute() as netlink:  # make test runs in a network namespace of its own, in which nothing is up
        netlink.link("set", index=netlink.link_lookup(ifname="lo")[0], state="up")
    if getattr(request, "param", "") == "default":
        lab.run("up")
    else:
        lab.up(topology(LEFT, LEFT, name="node"))
    lab.await_reach()
    serving = lab.start("web", "--port", "0")
    line = serving.stdout.readline()
    assert line, serving.stderr.read()
    yield int(line.partition("127.0.0.1:")[2].partition("/")[0])
    serving.terminate()
    serving.communicate(timeout=60)
    lab.run("down")


@contextmanager
def opened(port):
    page = Page(port)
    try:
        yield page
    finally:
        page.stream.close()
        page.connection.close()


def reaches(pairs):
    return len(pairs) == 2 and all(pair["ms"] is not None for pair in pairs)


def test_faults_are_seen_and_their_repair(port):
    with opened(port) as page:
        state = page.await_told("state", lambda state: all(node["daemon"] == "ready" for node in state["nodes"]))
        assert [node["name"] for node in state["nodes"]] == ["node1", "node2"]
        assert [pod["name"] for pod in state["nodes"][0]["pods"]] == ["pod-a"]
        page.await_told("reach", reaches)
        assert page.click("delete-device", "node1") == "node1: delete the tunnel device\n"
        page.await_event("node1", "flannel.1 deleted")
        page.await_event("node1", "flannel.1 made")
        page.await_told("reach", reaches)
        page.click("cut-link", "node2")
        page.await_event("node2", "eth0 down")
        page.await_told("reach", lambda pairs: pairs and all(pair["ms"] is None for pair in pairs))
        page.click("mend-link", "node2")
        page.await_told("reach", reaches)
        page.click("kill-etcd", "etcd")
        page.await_told("state", lambda state: not state["etcd"][0]["running"])
        page.click("start-etcd", "etcd")
        page.await_told("state", lambda state: state["etcd"][0]["healthy"])
        page.click("kill-daemon", "node1")
        page.await_told("state", lambda state: state["nodes"][0]["daemon"] == "ended")
        page.click("start-daemon", "node1")
        page.await_told("state", lambda state: state["nodes"][0]["daemon"] == "ready")
        page.click("flush-tables", "node2")
        page.await_event("node2", "1 route deleted")
        page.await_told("reach", reaches)


def test_strangers_and_wrong_requests_are_turned_away(port):
    with opened(port) as page:
        assert "no fault is named 'x'; there are cut-link," in page.click("x", "node1", status=400)
        assert "'router' is no node" in page.click("cut-link", "router", status=400)
        assert page.click("cut-link", "node1", status=403, Origin="http://elsewhere.example")
        assert page.click("cut-link", "node1", status=403, Host="elsewhere.example")


@pytest.mark.parametrize("port", ["default"], indirect=True)
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is missing: apt-get install chromium")
def test_the_page_in_a_browser(port, tmp_path, wait_for):
    def browse(*flags):
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--timeout=4000", *flags, f"http://127.0.0.1:{port}/"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def shows_all():
        shown = browse("--dump-dom")
        return all(
            text in shown
            for text in (
                "3 of 3 daemons ready · 1 of 1 etcd healthy · 30 of 30 pairs of pods reach each other",
                'aria-label="node node1, daemon ready"',
                "delete the tunnel device",
            )
        )

    with opened(port) as page:
        page.click("delete-device", "node1")
        page.await_event("node1", "flannel.1 made")
    wait_for(shows_all)  # Chromium dumps the page when it is loaded, which may be before all is told
    pictures = Path(os.environ.get("NETNS_LAB_PICTURES", tmp_path))
    for theme, setting in (("light", "1"), ("dark", "0")):
        picture = pictures / f"web-{theme}.png"

        def is_drawn(setting=setting, picture=picture):
            scheme = f"--blink-settings=preferredColorScheme={setting}"
            browse("--window-size=1280,900", scheme, f"--screenshot={picture}")
            return picture.stat().st_size > WITHOUT_MAP

        wait_for(is_drawn)


def test_files_of_the_page(port):
    for name, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        with urlopen(f"http://127.0.0.1:{port}/{name}", timeout=60) as answer:
            assert answer.headers.get_content_type() == kind
            assert (
                answer.read() == (Path(__file__).parents[2] / "netns_lab" / "web" / (name or "page.html")).read_bytes()
            )
            assert answer.headers["Content-Security-Policy"] == "default-src 'self'"

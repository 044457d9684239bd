"""flannelctl on a terminal, in a lab that has something to tell, and a picture of it."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.netns_lab.topologies import LEFT, RIGHT, topology
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

FLANNELCTL = str(Path(sys.executable).with_name("flannelctl"))
WIDTH = 104
THEMES = {
    "light": (
        "#ffffff",
        "#1c2430",
        ("#1c2430", "#c2261c", "#14803c", "#8a5200", "#2457c5", "#823ca0", "#006e82", "#5c6878"),
    ),
    "dark": (
        "#1b212a",
        "#e6eaf0",
        ("#98a4b4", "#ff7a6e", "#4cc274", "#e7ab45", "#82a9ff", "#d0a0f0", "#5cc8da", "#e6eaf0"),
    ),
}
"""Ground, ink, and the eight colours of a terminal, as the lab's page has them."""


def parse(colour):
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def run_on_terminal(lab, *words):
    """Run netns-lab on a terminal of its own; return what it shows."""
    ours, theirs = pty.openpty()
    environment = {**lab.environment, "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    with os.fdopen(ours, "rb", buffering=0) as shown:
        process = subprocess.Popen([lab.command, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        text = b""
        try:
            while part := shown.read(65536):
                text += part
        except OSError:
            pass  # the terminal is closed when the last who has it open ends (EIO)
        process.wait(30)
    return text.decode().replace("\r\n", "\n")


def draw(texts, theme):
    """Return a picture of commands and what they showed, as SVG without outside resources."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for command, text in texts:
        console.print(Text(f"# {command}", style="bold"))
        console.print(Text.from_ansi(text.rstrip("\n")))
        console.print()
    svg = console.export_svg(title="node1", theme=theme, unique_id="flannelctl")
    return re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)


def test_status_and_probe_on_a_terminal(lab, tmp_path):
    probing = [Path(sys.executable).with_name("flanneld"), "--probe-interval=1"]
    daemons = {f"node{number}": probing for number in (1, 2, 3)}
    lab.up(topology(LEFT, LEFT, RIGHT, name="node", daemons=daemons))

    def all_probed():
        return "ok 2" in run_on_terminal(lab, "exec", "node1", "--", FLANNELCTL, "status")

    wait_until(all_probed, 60)
    texts = []
    for words in (("status",), ("peers",), ("probe",), ("probe", "--all")):
        text = run_on_terminal(lab, "exec", "node1", "--", FLANNELCTL, *words)
        texts.append((f"flannelctl {' '.join(words)}", text))
    assert "\x1b[" in texts[0][1]
    pictures = Path(os.environ.get("NETNS_LAB_PICTURES", tmp_path))
    for name, (ground, ink, colours) in THEMES.items():
        theme = TerminalTheme(parse(ground), parse(ink), list(map(parse, colours)))
        svg = draw(texts, theme)
        assert "url(" not in svg.replace("url(#", "")
        (pictures / f"status-{name}.svg").write_text(svg)

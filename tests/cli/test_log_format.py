import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flanneld_py.cli.log_format import JsonFormatter, TextFormatter, is_journal, parse_modules, split_fields

FLANNELD = Path(sys.executable).with_name("flanneld")


def record(message, level=logging.INFO):
    return logging.LogRecord("flanneld_py.agent.x", level, __file__, 1, message, (), None)


@pytest.mark.parametrize(
    ("message", "event", "fields"),
    [
        ("lease renewed: key=10.5.2.0-24 ttl=86400.0", "lease renewed", {"key": "10.5.2.0-24", "ttl": "86400.0"}),
        ("ready: peers=3", "ready", {"peers": "3"}),
        ("x: reason=a b = c d=e", "x", {"reason": "a b = c", "d": "e"}),
        ("cannot go on: Network: it is missing", "cannot go on: Network: it is missing", {}),
        ("plain words", "plain words", {}),
        ("waiting: for=a lease reason=etcd: it\nis away", "waiting", {"for": "a lease", "reason": "etcd: it\nis away"}),
    ],
)
def test_fields_of_a_line(message, event, fields):
    assert split_fields(message) == (event, fields)


def test_json_has_a_key_for_each_field_and_no_field_takes_another_place():
    told = json.loads(
        JsonFormatter(to_journal=False).format(record("uplink chosen: name=eth0 level=x", logging.WARNING))
    )
    assert told.pop("time").endswith("+00:00")
    assert told == {"level": "warning", "logger": "flanneld_py.agent.x", "event": "uplink chosen", "name": "eth0"}


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_the_journal_gets_the_priority_on_every_line(level, priority):
    text = TextFormatter(to_journal=True).format(record("one\ntwo", level))
    assert text == f"<{priority}>one\n<{priority}>two"


def test_the_journal_is_known_by_the_very_stream(tmp_path):
    with (tmp_path / "log").open("w") as file:
        found = os.fstat(file.fileno())
        assert is_journal(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(file.fileno(), {"JOURNAL_STREAM": "8:1"})
        assert not is_journal(file.fileno(), {})


@pytest.mark.parametrize(("chosen", "begins"), [("text", "<6>flanneld "), ("json", "<6>{")])
def test_the_daemon_writes_so(tmp_path, chosen, begins):
    # A folder that cannot be made: the daemon says so and ends.
    (tmp_path / "file").touch()
    with (tmp_path / "log").open("w+") as file:
        found = os.fstat(file.fileno())
        environ = os.environ | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        command = [FLANNELD, f"--log-format={chosen}", f"--subnet-file={tmp_path}/file/subnet.env"]
        assert subprocess.run(command, stderr=file, env=environ, check=False, timeout=30).returncode == 1
        file.seek(0)
        first, last = file.read().splitlines()
    assert first.startswith(begins)
    assert last.startswith("<3>")


def test_an_unknown_format_is_wrong_use():
    done = subprocess.run([FLANNELD, "--log-format=xml"], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (
        2,
        "flanneld: --log-format: 'xml' is not known; expected one of: text, json\n",
    )


LOG_FROM_TWO_MODULES = """
import logging, os, sys
from flanneld_py.cli.log_format import parse_modules, set_up_log
set_up_log(int(sys.argv[1]), parse_modules(sys.argv[2]), "json", os.environ)
log = logging.getLogger("a")
for module in ("reconciler", "etcd_watch"):
    for level in (logging.DEBUG, logging.INFO):
        if log.isEnabledFor(level):
            word = logging.getLevelName(level).lower()
            log.handle(log.makeRecord("a", level, f"/somewhere/{module}.py", 1, f"{module} {word}", (), None))
"""


def test_modules_have_a_verbosity_of_their_own():
    assert parse_modules("reconciler=4,etcd_*=2") == (("reconciler", 4), ("etcd_*", 2))
    for text in ("reconciler", "=4", "a=b", "a=-1"):
        with pytest.raises(ValueError, match="PATTERN=LEVEL"):
            parse_modules(text)


@pytest.mark.parametrize(
    ("verbosity", "modules", "told"),
    [
        (0, "", ["reconciler info", "etcd_watch info"]),
        (4, "", ["reconciler debug", "reconciler info", "etcd_watch debug", "etcd_watch info"]),
        (0, "etcd_*=4", ["reconciler info", "etcd_watch debug", "etcd_watch info"]),
        (4, "recon*=0", ["reconciler info", "etcd_watch debug", "etcd_watch info"]),
    ],
)
def test_what_is_logged(verbosity, modules, told):
    command = [sys.executable, "-c", LOG_FROM_TWO_MODULES, str(verbosity), modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == told

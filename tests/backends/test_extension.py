import asyncio
import json
import sys

import pytest

from flanneld_py.core.entries import DrivenEntry
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs
from flanneld_py.core.peer import Peer
from flanneld_py.core.plan import plan_change
from flanneld_py.core.prefix import parse_prefix
from tests.backends.nodes import DUAL, V6, ip, make_backend
from tests.waiting import until

SUBNET, SUBNET6 = parse_prefix("10.5.2.0/24"), parse_prefix("fd42:0:0:2::/64")
ENTRY = DrivenEntry("extension", (SUBNET,), (ip("172.30.0.13"), "key=1"))
CHANGED = DrivenEntry("extension", (SUBNET,), (ip("172.30.0.14"), "key=2"))


NAMES = ("notes", "fails", "waits")


class Commands:
    """A script that notes how it was called, and fails, or waits, as long as a file is there."""

    def __init__(self, folder):
        self.notes, self.fails, self.waits = (folder / name for name in NAMES)
        script = folder / "command.py"
        script.write_text(
            "import os, sys, json, time, pathlib\n"
            f"notes, fails, waits = (pathlib.Path(p) for p in {[str(folder / name) for name in NAMES]})\n"
            "names = ('NETWORK', 'SUBNET', 'IPV6SUBNET', 'PUBLIC_IP', 'PUBLIC_IPV6')\n"
            "said = [sys.argv[1], {n: os.environ[n] for n in names if n in os.environ}, sys.stdin.read()]\n"
            "bad = fails.exists()\n"
            "with notes.open('a') as file: file.write(json.dumps(said) + '\\n')\n"
            "while waits.exists(): time.sleep(0.01)\n"
            "print('made', os.environ.get('SUBNET'))\n"
            "sys.exit(bad)\n"
        )
        self.command = f"{sys.executable} {script}"

    def calls(self):
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

    def names(self):
        return [call[0] for call in self.calls()]


class Listener:
    def __init__(self):
        self.refusals = []

    def refused(self, operation, errno, reason):
        self.refusals.append((operation, errno, reason))


@pytest.fixture
def commands(tmp_path):
    return Commands(tmp_path)


@pytest.fixture
def feedback():
    return Listener()


@pytest.fixture
async def start(commands, feedback):
    tasks = []

    def begin(network=None, **keys):
        names = keys or {"SubnetAddCommand": "add", "SubnetRemoveCommand": "remove"}
        keys = {key: f"{commands.command} {name}" for key, name in names.items()}
        backend = make_backend("extension", network or {"Network": "10.5.0.0/16"}, **keys)
        attrs = LeaseAttrs(ip("172.30.0.12"), None, "extension")
        tasks.append(asyncio.create_task(backend.run(Lease(parse_prefix("10.5.1.0/24"), None, attrs), feedback)))
        return backend

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_pre_startup_commands_output_is_published(commands):
    backend = make_backend("extension", PreStartupCommand=f"{commands.command} pre")
    await backend.prepare(None)
    assert encode_attrs(backend.publish(None, None, None)) == (
        '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"extension","BackendData":"made None"}'
    )
    assert commands.calls() == [["pre", {}, "\n"]]


async def test_without_commands_there_is_no_data():
    backend = make_backend("extension")
    await backend.prepare(None)
    assert backend.publish(None, None, None).backend_data is None


async def test_pre_startup_command_that_fails_stops_the_start(commands):
    commands.fails.touch()
    backend = make_backend("extension", PreStartupCommand=f"{commands.command} pre")
    with pytest.raises(ConfigError, match=r"PreStartupCommand: .*exit status 1: made None"):
        await backend.prepare(None)


def test_command_that_is_no_string_is_refused():
    with pytest.raises(ConfigError, match="SubnetAddCommand: 5 is no string"):
        make_backend("extension", SubnetAddCommand=5)


async def test_post_startup_command_is_told_who_we_are_and_tried_until_it_works(start, commands):
    commands.fails.touch()
    backend = start(PostStartupCommand="post", SubnetAddCommand="add")
    backend.drivers[0].apply(plan_change([], [ENTRY]))
    await until(lambda: len(commands.calls()) > 1)
    commands.fails.unlink()
    await until(lambda: "add" in commands.names())
    assert commands.calls()[0] == [
        "post",
        {
            "NETWORK": "10.5.0.0/16",
            "SUBNET": "10.5.1.0/24",
            "IPV6SUBNET": "",
            "PUBLIC_IP": "172.30.0.12",
            "PUBLIC_IPV6": "",
        },
        "\n",
    ]


async def test_peers_are_told_with_their_data(start, commands):
    driver = start().drivers[0]
    driver.apply(plan_change([], [ENTRY]))
    assert driver.read() == [ENTRY]
    await until(lambda: len(commands.calls()) == 1)
    driver.apply(plan_change([ENTRY], []))
    assert driver.read() == []
    await until(lambda: len(commands.calls()) == 2)
    told = {"SUBNET": "10.5.2.0/24", "PUBLIC_IP": "172.30.0.13"}
    assert commands.calls() == [["add", told, "key=1\n"], ["remove", told, "key=1\n"]]


async def test_failed_command_is_reported_and_the_peer_is_not_there(start, commands, feedback):
    commands.fails.touch()
    driver = start().drivers[0]
    [operation] = plan_change([], [ENTRY])
    driver.apply([operation])
    await until(lambda: feedback.refusals)
    assert feedback.refusals[0][0] == operation
    assert "exit status 1: made 10.5.2.0/24" in feedback.refusals[0][2]
    assert driver.read() == []
    commands.fails.unlink()
    driver.apply([operation])
    await until(lambda: len(commands.calls()) == 2)
    assert driver.read() == [ENTRY]
    commands.fails.touch()
    driver.apply(plan_change([ENTRY], []))
    await until(lambda: len(feedback.refusals) == 2)
    assert driver.read() == [ENTRY]


async def test_one_command_a_peer_at_a_time_and_only_the_latest_counts(start, commands, feedback):
    commands.waits.touch()
    commands.fails.touch()
    driver = start().drivers[0]
    driver.apply(plan_change([], [ENTRY]))
    await until(lambda: len(commands.calls()) == 1)
    # The first command fails, though nobody waits for what it was to bring about.
    commands.fails.unlink()
    driver.apply(plan_change([ENTRY], []))
    driver.apply(plan_change([], [CHANGED]))
    other = DrivenEntry("extension", (parse_prefix("10.5.3.0/24"),), (1, ""))
    driver.apply(plan_change([], [other]))
    await until(lambda: len(commands.calls()) == 2)
    assert commands.calls()[1][1]["SUBNET"] == "10.5.3.0/24"
    commands.waits.unlink()
    await until(lambda: len(commands.calls()) == 3)
    assert commands.calls()[2] == ["add", {"SUBNET": "10.5.2.0/24", "PUBLIC_IP": "172.30.0.14"}, "key=2\n"]
    assert driver.read() == [CHANGED, other]
    assert feedback.refusals == []


async def test_without_a_command_nothing_runs(start, feedback):
    driver = start(PostStartupCommand="post").drivers[0]
    driver.apply(plan_change([], [ENTRY]))
    await until(lambda: not driver._waiting and not driver._running)
    assert driver.read() == [ENTRY]
    assert feedback.refusals == []


def test_leases_become_one_peer_each():
    lease = Lease(SUBNET, SUBNET6, LeaseAttrs(ip("172.30.0.13"), ip("fd30::13"), "extension", '"key=1"'))
    assert make_backend("extension").read_peers(lease) == (Peer(SUBNET, ip("172.30.0.13"), data="key=1"),)
    assert make_backend("extension", DUAL).read_peers(lease) == (Peer(SUBNET, ip("172.30.0.13"), data="key=1"),)
    assert make_backend("extension", V6).read_peers(lease) == (Peer(SUBNET6, ip("fd30::13"), data="key=1"),)
    with pytest.raises(ValueError, match="its backend is 'vxlan', this node's is 'extension'"):
        make_backend("extension").read_peers(Lease(SUBNET, None, LeaseAttrs(1, None, "vxlan")))
    with pytest.raises(ValueError, match="no string"):
        make_backend("extension").read_peers(Lease(SUBNET, None, LeaseAttrs(1, None, "extension", '{"a":1}')))


def test_peer_is_one_entry():
    assert make_backend("extension").desired(Peer(SUBNET, ip("172.30.0.13"), data="key=1"), None) == (ENTRY,)

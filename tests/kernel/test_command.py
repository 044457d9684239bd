import errno
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.kernel.command import CommandError, run_command, split_command

SAY = "import os, sys; print(*sys.argv[1:], sep='|'); print(sys.stdin.read(), file=sys.stderr)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ip route add $SUBNET via ${PUBLIC_IP}", ["ip", "route", "add", "10.5.2.0/24", "via", "10.0.0.1"]),
        ("  a \t b ", ["a", "b"]),
        ("x$NONE ${NONE}y", ["x", "y"]),
        ("$EVIL;reboot", ["a b; rm -rf /;reboot"]),
        ("cost=5$ $$ $5 ${", ["cost=5$", "$$", "$5", "${"]),
        ("`ls` $(ls) * | '&&'", ["`ls`", "$(ls)", "*", "|", "'&&'"]),
    ],
)
def test_command_is_split_first_and_nothing_is_a_shells(text, words):
    variables = {"SUBNET": "10.5.2.0/24", "PUBLIC_IP": "10.0.0.1", "EVIL": "a b; rm -rf /"}
    assert split_command(text, variables) == words


@given(st.text(), st.dictionaries(st.sampled_from("AB"), st.text()))
def test_any_text_can_be_split(text, variables):
    assert len(split_command(text, variables)) == len(text.split())


@pytest.fixture
def script(tmp_path):
    def make(source):
        file = tmp_path / "script.py"
        file.write_text(source)
        return f"{sys.executable} {file}"

    return make


async def test_command_gets_variables_and_input_and_its_output_comes_back_trimmed(script):
    command = script("import os, sys\nprint(os.environ['SUBNET'], sys.argv[1], sys.stdin.read(), ' ')")
    assert await run_command(f"{command} <$SUBNET>", {"SUBNET": "10.5.2.0/24"}, "the data", 20) == (
        "10.5.2.0/24 <10.5.2.0/24> the data"
    )


async def test_failure_says_what_the_command_said(script):
    command = script("import sys\nprint('half done'); sys.exit('no such peer')")
    with pytest.raises(CommandError, match=r"exit status 1: half done \| no such peer") as caught:
        await run_command(command, {}, "", 20)
    assert caught.value.errno == errno.EIO


async def test_missing_command_is_named():
    with pytest.raises(CommandError, match="/no/such: No such file") as caught:
        await run_command("/no/such thing", {}, "", 20)
    assert caught.value.errno == errno.ENOENT


async def test_hanging_command_is_killed_with_what_it_started(script, tmp_path):
    pids = tmp_path / "pids"
    command = script(
        f"import os, time\nchild = os.fork()\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(600)"
    )
    with pytest.raises(CommandError, match="killed") as caught:
        await run_command(command, {}, "", 1.0)
    assert caught.value.errno == errno.ETIMEDOUT
    deadline = time.monotonic() + 10
    while [pid for pid in pids.read_text().split() if is_running(pid)]:
        assert time.monotonic() < deadline


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_what_stays_in_the_background_is_not_waited_for(script):
    command = script("import os, time\nif os.fork() == 0:\n    time.sleep(3)\nelse:\n    print('started')")
    began = time.monotonic()
    assert await run_command(command, {}, "", 20) == "started"
    assert time.monotonic() - began < 3


def count_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left():
    before = count_descriptors()
    for _ in range(3):
        await run_command("true", {}, "", 20)
        with pytest.raises(CommandError):
            await run_command("/no/such", {}, "", 20)
    assert count_descriptors() <= before + 2

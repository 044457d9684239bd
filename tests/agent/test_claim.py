import asyncio
import os
import subprocess
import sys
from functools import partial

import pytest

from flanneld_py.agent import startup
from flanneld_py.agent.claim import ClaimedError, claim_device, claim_subnet_file, turn_away
from flanneld_py.agent.startup import wait_for_claim
from tests.waiting import until


@pytest.fixture
def name(request):
    # Claims are told apart by the network namespace; without one of our own, by a name that nobody else has.
    return f"test-{os.getpid()}-{request.node.name}"


def test_second_claim_is_refused_with_the_holders_pid(name):
    with claim_device(name), pytest.raises(ClaimedError) as caught:
        claim_device(name)
    assert caught.value.pid == os.getpid()
    assert str(caught.value) == f"another flanneld (pid {os.getpid()}) holds {name}"


def test_claims_of_two_devices_do_not_meet(name):
    with claim_device(name), claim_device(f"{name}2"):
        pass


def test_claim_is_free_when_it_is_closed(name):
    claim_device(name).close()
    claim_device(name).close()


def test_claim_is_free_when_its_process_is_killed(name):
    code = (
        f"from flanneld_py.agent.claim import claim_device as c; held = c({name!r}); print('held', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ClaimedError) as caught:
            claim_device(name)
        assert caught.value.pid == holder.pid
        holder.kill()
        holder.wait()
    claim_device(name).close()


@pytest.mark.kernel
def test_namespaces_do_not_meet(name, make_namespace):
    with make_namespace().run(claim_device, name), make_namespace().run(claim_device, name):
        pass


def test_holder_is_known_to_any_number_of_others(name):
    with claim_device(name) as claim:
        for _ in range(300):
            with pytest.raises(ClaimedError) as caught:
                claim_device(name)
            assert caught.value.pid == os.getpid()
            turn_away(claim)


async def test_second_daemon_waits_for_the_first(name, caplog):
    first = claim_device(name)
    waiting = asyncio.create_task(wait_for_claim(f"device {name}", partial(claim_device, name)))
    await until(lambda: "waiting: for=device" in caplog.text)
    assert f"pid {os.getpid()}" in caplog.text
    assert not waiting.done()
    first.close()
    (await waiting).close()


async def test_second_daemon_gives_up_when_the_first_stays(name, monkeypatch):
    monkeypatch.setattr(startup, "_CLAIM_PATIENCE", 0.0)
    with claim_device(name), pytest.raises(ClaimedError, match=f"pid {os.getpid()}"):
        await wait_for_claim(f"device {name}", partial(claim_device, name))


def test_subnet_file_is_claimed_once_and_names_its_holder(tmp_path):
    path = tmp_path / "flannel" / "subnet.env"
    with claim_subnet_file(path):
        with pytest.raises(ClaimedError, match=f"pid {os.getpid()}.*subnet.env") as caught:
            claim_subnet_file(path)
        assert caught.value.pid == os.getpid()
    claim_subnet_file(path).close()


def test_claims_of_other_subnet_files_do_not_meet(tmp_path):
    with claim_subnet_file(tmp_path / "one.env"), claim_subnet_file(tmp_path / "two.env"):
        pass


def test_claim_on_a_subnet_file_follows_no_link(tmp_path):
    (tmp_path / ".subnet.env.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        claim_subnet_file(tmp_path / "subnet.env")
    assert not (tmp_path / "precious").exists()


def test_full_disk_names_the_file(tmp_path):
    # As a file that may not grow, which a write meets as late as a full disk.
    code = (
        "import resource, signal, sys; from pathlib import Path; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "from flanneld_py.agent.claim import claim_subnet_file\n"
        "try: claim_subnet_file(Path(sys.argv[1]))\n"
        "except OSError as error: print(error.filename)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "subnet.env"], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{tmp_path}/.subnet.env.lock\n", done.stderr

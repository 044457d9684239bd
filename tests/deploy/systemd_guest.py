"""A machine with systemd as its first process: a user-mode Linux on this machine's files, with memory laid over them.

It is an ordinary process, so it needs no privilege; what it writes is gone with it.
"""

import json
import os
import resource
import select
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import wait_until

_HERE = Path(__file__).parent / "guest"
_PATIENCE = 60.0
"""Seconds for the start, or for one command; booting takes 8 s."""
_TARGET = "[Unit]\nRequires=basic.target agent.service\nAfter=basic.target agent.service\n"
_AGENT = """\
[Service]
StandardInput=tty-force
StandardOutput=tty
StandardError=journal
TTYPath=/dev/tty1
ExecStart=/usr/bin/python3 /guest/agent.py
"""
_UNWANTED = ("docker.socket", "podman.socket", "apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer")


class Guest:
    """A running guest; `folder` is its /guest."""

    def __init__(self, folder):
        for program, package in (("linux", "user-mode-linux"), ("systemctl", "systemd")):
            if shutil.which(program) is None:
                pytest.skip(f"no {program}: apt-get install {package}")
        self.folder = folder
        self._write_files()
        commands, self._commands = os.pipe()
        answers, self._told = os.pipe()
        self._answers = answers
        self._buffer = b""
        words = ["mem=2G", "rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1"]
        words += [f"con1=fd:{commands},fd:{self._told}", f"init={_HERE / 'init'}"]
        words += [f"GUEST_FOLDER={folder}", f"uml_dir={folder}/uml/"]
        # It holds each file of the machine open that the guest has looked at.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        with (folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["linux", *words],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(commands, self._told),
                # Its memory is a file there: a folder on a disk would be slow.
                env={key: value for key, value in os.environ.items() if key != "TMPDIR"},
            )
        os.close(commands)
        os.close(self._told)
        assert self._read() == "ready"

    def _write_files(self):
        units = self.folder / "etc/systemd/system"
        units.mkdir(parents=True)
        (units / "guest.target").write_text(_TARGET)
        (units / "agent.service").write_text(_AGENT)
        for name in _UNWANTED:
            (units / name).symlink_to("/dev/null")
        # Debian's rule empties /tmp at boot: of whatever size it is on this machine.
        (self.folder / "etc/tmpfiles.d").mkdir()
        (self.folder / "etc/tmpfiles.d/tmp.conf").symlink_to("/dev/null")
        # This kernel's nf_tables know no IP.
        (self.folder / "etc/alternatives").mkdir()
        for name in ("iptables", "iptables-save", "iptables-restore"):
            (self.folder / "etc/alternatives" / name).symlink_to(
                f"/usr/sbin/{name.replace('iptables', 'iptables-legacy')}"
            )
        (self.folder / "etc/modules-load.d").mkdir()
        (self.folder / "etc/modules-load.d/guest.conf").write_text("ip_tables\n")
        for name in ("agent.py", "echo.py"):
            shutil.copy(_HERE / name, self.folder)

    def _read(self):
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], _PATIENCE)
            more = os.read(self._answers, 1 << 16) if ready else b""
            assert more, f"the guest is silent:\n{self.console()[-2000:]}"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def run(self, *words):
        """Run a command in the guest; return its status, output and errors."""
        os.write(self._commands, f"{json.dumps([str(word) for word in words])}\n".encode())
        return self._read()

    def sh(self, script):
        """Run a shell's script in the guest, and return what it prints."""
        status, output, errors = self.run("sh", "-ec", script)
        assert status == 0, f"{script}: {output}{errors}"
        return output

    def wait_for(self, script):
        """Wait until a shell's script succeeds."""
        last = []

        def succeeds():
            last[:] = self.run("sh", "-ec", script)
            return last[0] == 0

        try:
            wait_until(succeeds, _PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{script}: {last}") from error

    def show(self, unit, name):
        """Return a property of a unit."""
        return self.sh(f"systemctl show --value --property={name} {unit}").strip()

    def log_of(self, unit):
        """Return the journal of a unit."""
        return self.sh(f"journalctl --unit={unit} --output=cat --no-pager")

    def console(self):
        """Return what the kernel and systemd itself have said so far."""
        return (self.folder / "console").read_text(errors="replace")

    def close(self):
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            os.write(self._commands, b'["systemctl", "poweroff", "--force", "--force"]\n')
            self._process.wait(20)
        self._process.kill()
        self._process.wait(20)
        os.close(self._commands)
        os.close(self._answers)

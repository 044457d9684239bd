"""The files that `flannelctl cni install` writes, as bytes: the plugin's executable and the conflist. Pure."""

from __future__ import annotations

import json
import os
import shlex

_LONGEST_SHEBANG = 127
"""Bytes of a script's first line that every kernel reads (BINPRM_BUF_SIZE was 128 before Linux 5.1)."""

_FLAGS = "-IS"
"""Isolated and without `site`: nothing in the environment or in the user's folders changes the plugin, and it starts
in a third of the time."""

CODE = """\
import gc
import posix
import sys

gc.disable()
sys.path.append({folder})
from cni_plugin.main import main

posix._exit(main())
"""
"""The process ends before there is anything to collect, and leaves its tidying up to the kernel: 3 ms less."""


SHELL = "/bin/bash"
"""One that reads with a time limit; the -p below keeps its environment from running anything."""

DOOR = "/run/flannel/subnet.cni.door"

_RINGING = """\
#!{shell} -p
# Rings at flanneld's door and waits for its answer: what it needs, it reads from this process (agent/pod_door.py).
# Without flanneld, and for all else, the interpreter below serves the call.
door={door}
interrupted=
# In another namespace of processes than that of /proc, the daemon would take this one's id for another one's.
if [[ -p /proc/self/fd/0 && -f $CNI_NETNS && $door.owner -ef $door && /proc/$$ -ef /proc/self ]]; then
	{{
		answer=2
		[[ -p /proc/self/fd/4 ]] && answer= && printf '%07d\\n' $$ >&6
		seconds=0
		read -r -u 5 # the empty line that the pipe was made with
		until [[ $answer ]]; do
			# A read whose time is over may lose what has just come: it is given an empty line for that.
			read -r -t 1 -u 5
			while [[ ! $answer ]] && read -t 0 -u 5; do
				read -r -t 5 -u 5 answer output || answer=2 interrupted=interrupted # it is cut off
			done
			[[ $answer ]] && continue
			((seconds += 1))
			[[ $door.owner -ef /proc/self/fd/6 ]] && ((seconds != {begin} && seconds < {end})) && continue
			if read -r -u 4; then
				answer=2 # nobody has taken the call, and now nobody will
			elif [[ $door.owner -ef /proc/self/fd/6 ]] && ((seconds < {end})); then
				continue
			elif ! read -t 0 -u 5; then
				answer=2 interrupted=interrupted
			fi
		done
	}} 2>/dev/null 3<"$CNI_NETNS" 4<<<call 5<<<'' 5<>/proc/self/fd/5 6<>"$door" 7>&1
	if [[ $answer == [01] ]]; then
		printf %s "$output" && exit "$answer"
		exit 1
	fi
fi
exec {command} $interrupted
"""
_BEGIN_PATIENCE = 5
"""Seconds after which a call that the daemon has not taken is taken back: it is busy, or stopped."""
_ANSWER_PATIENCE = 65


def encode_executable(interpreter: str, folder: str) -> bytes:
    """Return the script that runs the plugin by an interpreter with the packages in a folder, both absolute."""
    code = CODE.format(folder=ascii(folder))
    shebang = f"#!{interpreter} {_FLAGS}\n"
    if len(os.fsencode(shebang)) <= _LONGEST_SHEBANG and not any(character.isspace() for character in interpreter):
        return os.fsencode(shebang + code)
    # The kernel splits the first line at spaces and cuts it off; a shell does neither.
    return os.fsencode(f"#!/bin/sh\nexec {_command(interpreter, folder)}\n")


def encode_ringing_executable(interpreter: str, folder: str, *, door: str = DOOR) -> bytes:
    """Return the script that has a daemon serve the call, without an interpreter of its own, where one answers."""
    return os.fsencode(
        _RINGING.format(
            shell=SHELL,
            door=shlex.quote(door),
            begin=_BEGIN_PATIENCE,
            end=_ANSWER_PATIENCE,
            command=_command(interpreter, folder),
        )
    )


def _command(interpreter: str, folder: str) -> str:
    return f"{shlex.quote(interpreter)} {_FLAGS} -c {shlex.quote(CODE.format(folder=ascii(folder)))}"


def encode_conflist(*, has_portmap: bool, anti_spoof: bool = True) -> bytes:
    """Return the network configuration that kube-flannel brings, with portmap only where that is installed.

    With `anti_spoof` a pod can send with its own MAC and addresses only; the genuine plugins pass over the key.

    The version is the newest that runtimes in use understand; those that know `cniVersions` may choose a later one.
    """
    plugins: list[dict[str, object]] = [
        {
            "type": "flannel",
            "delegate": {"hairpinMode": True, "isDefaultGateway": True} | ({"antiSpoof": True} if anti_spoof else {}),
        }
    ]
    if has_portmap:
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
    content = {"name": "cbr0", "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "plugins": plugins}
    return (json.dumps(content, indent=2) + "\n").encode()


def written_conflists() -> tuple[bytes, ...]:
    """Return all that an installation may have written: whatever else is there, a user wrote."""
    return tuple(
        encode_conflist(has_portmap=has_portmap, anti_spoof=anti_spoof)
        for has_portmap in (False, True)
        for anti_spoof in (False, True)
    )

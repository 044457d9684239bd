"""`flannelctl docker-opts`: Docker's options for a bridge in this node's subnet, as mk-docker-opts writes them.

Flags and output are those of Go flannel's script, so that a unit which calls it may call this.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.core.entries import UNICAST
from flanneld_py.core.prefix import IPV4
from flanneld_py.core.subnet_env import encode_subnet_env, parse_subnet_env
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.files import put_in_place

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.subnet_env import SubnetEnv
    from flanneld_py.ctl.subparsers import Subparsers

_PREFIX = "DOCKER_OPT_"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODE = 0o644


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `docker-opts` to the command line."""
    parser = subcommands.add_parser(
        "docker-opts",
        help="write Docker's options for this node's subnet",
        description="Writes a file of variables for docker.service, as mk-docker-opts does: each option by itself and "
        "all together, unless -i or -c asks for one of both. Options in the environment (DOCKER_OPT_…, and the "
        "variable of all) are taken over.",
    )
    subnet_file, docker_file = Path("/run/flannel/subnet.env"), Path("/run/docker_opts.env")
    parser.add_argument("-f", dest="subnet_file", type=Path, default=subnet_file, help="flanneld's (%(default)s)")
    parser.add_argument("-d", dest="docker_file", type=Path, default=docker_file, help="to be written (%(default)s)")
    parser.add_argument("-i", dest="single", action="store_true", help="write each option as a variable of its own")
    parser.add_argument("-c", dest="combined", action="store_true", help="write all options into one variable")
    parser.add_argument("-k", dest="key", default="DOCKER_OPTS", help="name of that variable (%(default)s)")
    parser.add_argument("-m", dest="no_masquerade", action="store_true", help="leave out --ip-masq")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not _KEY.fullmatch(options.key):
        raise CtlError(f"-k {options.key!r}: a variable's name is letters, digits and _")
    both = options.single == options.combined
    env = _read_subnet_env(options.subnet_file)
    told = collect_options(env, os.environ, masquerade=not options.no_masquerade)
    lines = [f'{name}="{value}"' for name, value in told.items()] if options.single or both else []
    if options.combined or both:
        former = os.environ.get(options.key, "")
        # The script's own spaces: Docker's unit splits at them anyway.
        lines.append(f'{options.key}="{f"{former} " if former else ""}{"".join(f" {one}" for one in told.values())}"')
    try:
        put_in_place(options.docker_file, "".join(f"{line}\n" for line in lines).encode(), _MODE)
    except OSError as error:
        raise CtlError(f"{options.docker_file}: {error.strerror}") from error
    _refuse_routed(env)
    return 0


def collect_options(env: SubnetEnv, environ: Mapping[str, str], *, masquerade: bool) -> dict[str, str]:
    """Return Docker's options by the name of their variable, in the order of these."""
    values = dict(line.split("=", 1) for line in encode_subnet_env(env).splitlines())
    options = {name: value for name, value in environ.items() if name.startswith(_PREFIX)}
    if "FLANNEL_SUBNET" in values:
        options[f"{_PREFIX}BIP"] = f"--bip={values['FLANNEL_SUBNET']}"
    options[f"{_PREFIX}MTU"] = f"--mtu={env.mtu}"
    if masquerade:
        options[f"{_PREFIX}IPMASQ"] = f"--ip-masq={'false' if env.ip_masq else 'true'}"
    return dict(sorted(options.items()))


def _read_subnet_env(path: Path) -> SubnetEnv:
    try:
        text = path.read_text(errors="replace")
        flag = next(
            (line.partition("=")[2] for line in text.splitlines() if line.startswith("FLANNEL_IPMASQ=")), "true"
        )
        if flag not in {"true", "false"}:
            raise CtlError(f"{path}: FLANNEL_IPMASQ is {flag[:40]!r}; expected true or false")
        return parse_subnet_env(text)
    except OSError as error:
        raise CtlError(f"{path}: {error.strerror}: flanneld writes it when it is ready") from error
    except ValueError as error:
        raise CtlError(f"{path}: {error}") from error


def _refuse_routed(env: SubnetEnv) -> None:
    """Raise CtlError where a route by a gateway takes the subnet elsewhere, so that no bridge here could have it."""
    from flanneld_py.kernel.host import read_routes  # late: netlink is not needed for the rest
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

    subnet: Prefix | None = next((one for one in env.subnets if one.family == IPV4), None)
    with NetlinkSocket() as sock:
        for route in read_routes(sock):
            if route.dst == subnet and route.type == UNICAST and (route.gateway or route.nexthop_id):
                raise CtlError(f"the routing table already sends {subnet} to a gateway: ip route show {subnet}")

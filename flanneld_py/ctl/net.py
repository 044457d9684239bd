"""`flannelctl net set|show`: the cluster's configuration, judged by the daemon's own parser before it is written."""

from __future__ import annotations

import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flanneld_py.backends.registry import backend_keys, parse_backend
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.network_config import KEYS, name_keys, parse_network_config
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.output import NOT_WELL, OK, show, show_json
from flanneld_py.ctl.store import add_store_flags, read_store, work_in_etcd

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from flanneld_py.core.lease import Lease
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.ctl.subparsers import Subparsers
    from flanneld_py.store.admin import StoredConfig, StoreReader
    from flanneld_py.store.etcd_admin import EtcdAdmin

_NO_WRITING = (
    "net-conf.json is in the ConfigMap that flannel's pods mount: kubectl -n kube-flannel edit configmap "
    "kube-flannel-cfg; the daemons follow what can be followed, and flannelctl net show says what it means"
)
_NAMED = 3
"""Leases named in a message; the others are counted."""


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `net` to the command line."""
    parser = subcommands.add_parser(
        "net", help="the cluster's configuration", description="The configuration in the store."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    show_parser = verbs.add_parser(
        "show",
        help="what it says and means",
        description="Shows the configuration. Exits with 3 where there is none, or none that can be used.",
    )
    add_store_flags(show_parser)
    show_parser.set_defaults(run=_run_show)
    set_parser = verbs.add_parser(
        "set",
        help="write it, if it can be used",
        description="Writes the configuration: what is there, with the keys changed that are given. A key whose value "
        "is empty goes. Keys that nobody knows and leases that would not fit any more are named, and nothing is "
        "written, unless --force is given.",
    )
    set_parser.add_argument(
        "keys", nargs="*", metavar="KEY=VALUE", help="like Network=10.5.0.0/16 Backend.Type=vxlan Backend.Port=4789"
    )
    set_parser.add_argument("--file", help="begin with this file (- for standard input) in place of what is there")
    set_parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    set_parser.add_argument(
        "--force", action="store_true", help="write it though leases would not fit, or nobody knows a key"
    )
    add_store_flags(set_parser)
    set_parser.set_defaults(run=_run_set)


def _run_show(options: argparse.Namespace) -> int:
    stored, assigns_subnets = read_store(options, _read)
    if stored.text is None:
        raise CtlError("there is no configuration yet: flannelctl net set Network=10.5.0.0/16 Backend.Type=vxlan")
    try:
        told, problem = describe_config(judge_config(stored.text, assigns_subnets=assigns_subnets)), None
    except ConfigError as error:
        told, problem = {}, str(error)
    if options.json:
        show_json({"text": stored.text, "means": told, "problem": problem})
    else:
        show([stored.text, *(f"  {key:<12} {value}" for key, value in told.items())])
    if problem:
        print(f"flannelctl: no daemon can use it: {problem}", file=sys.stderr)
    return NOT_WELL if problem else OK


async def _read(store: StoreReader) -> tuple[StoredConfig, bool]:
    return await store.read_config(), store.assigns_subnets


def judge_config(text: str, *, assigns_subnets: bool = False) -> NetworkConfig:
    """Read a configuration as the daemon would, that of the backend included. Raises ConfigError.

    A store that assigns subnets by itself heeds no bounds for them.
    """
    config = parse_network_config(text, limits=not assigns_subnets)
    parse_backend(config)
    return config


def describe_config(config: NetworkConfig) -> dict[str, Any]:
    """Return what a configuration means, as plain JSON data."""
    told: dict[str, Any] = {"backend": config.backend_type}
    for part in config.ranges:
        told[f"ipv{part.network.family}"] = (
            f"{part.network}: {part.count} subnets of /{part.subnet_len}, from {part.first.base} to {part.last.base}"
        )
    return told


def _run_set(options: argparse.Namespace) -> int:
    if not options.keys and not options.file:
        raise CtlError("nothing to set: give KEY=VALUE, or --file")

    async def write(store: EtcdAdmin) -> str:
        stored = await store.read_config()
        begin = _read_file(options.file) if options.file else stored.text or "{}"
        try:
            text = change_config(begin, options.keys)
            config = judge_config(text)
            slips = find_slips(text, stored.text or "{}", config.backend_type)
        except ConfigError as error:
            raise CtlError(str(error)) from error
        if slips and not options.force:
            raise CtlError(f"{slips}; --force writes it all the same, and the daemons ignore it")
        misfits = find_misfits(config, (await store.list_leases())[0])
        if misfits and not options.force:
            more = f" and {len(misfits) - _NAMED} more" if len(misfits) > _NAMED else ""
            raise CtlError(
                f"{', '.join(misfits[:_NAMED])}{more} would not fit: these nodes would be given other subnets, and "
                "their pods cut off; --force writes it all the same"
            )
        if not options.dry_run and not await store.write_config(text, stored.revision):
            raise CtlError("somebody else has written the configuration meanwhile; look at it, and try again")
        return text

    text = work_in_etcd(options, write, instead=_NO_WRITING)
    print(text)
    return OK


def find_slips(text: str, stored: str, backend_type: str) -> str:
    """Name the keys of a configuration that no daemon knows, and what each may have been meant to be; empty if none.

    What has been in the stored one stays: it is no slip of whoever writes now. Raises ConfigError.
    """
    known = [*KEYS, *(f"Backend.{key}" for key in ("Type", *backend_keys(backend_type)))]
    # By its name alone, as Backend. may have been left out, or be too much.
    by_name = {key.lower().removeprefix("backend."): key for key in known}
    lower = {key.lower() for key in known}
    try:
        there = name_keys(stored)
    except ConfigError:
        there = []
    told = []
    for key in name_keys(text):
        if key.lower() not in lower and key not in there:
            near = get_close_matches(key.lower().removeprefix("backend."), by_name, n=1)
            told.append(f"{key} ({by_name[near[0]]}?)" if near else key)
    return f"{', '.join(told)}: no such key with {backend_type}; there are {', '.join(known)}" if told else ""


def _read_file(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CtlError(f"--file: {error}") from error


def change_config(text: str, changes: list[str]) -> str:
    """Return a configuration with keys changed: `Network=10.5.0.0/16`, `Backend.Port=4789`, `SubnetLen=`.

    A value is JSON where it reads as such, else text. Raises ConfigError.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ConfigError("config", f"it is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise ConfigError("config", "it is no JSON object")
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(change, "expected KEY=VALUE")
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(_spelt(place, parent), {})
            if not isinstance(place, dict):
                raise ConfigError(path, f"{parent} is no object")
        place.pop(_spelt(place, last), None)
        if value:
            place[last] = _parse_value(value)
    return json.dumps(config)


def _spelt(place: Mapping[str, Any], key: str) -> str:
    """Return a key as it is written there: letter case does not count."""
    return next((there for there in place if there.lower() == key.lower()), key)


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def find_misfits(config: NetworkConfig, leases: Mapping[str, Lease]) -> list[str]:
    """Return the keys of the leases that no node could keep under a configuration."""
    ranges = {part.network.family: part for part in config.ranges}
    return [
        name
        for name, lease in sorted(leases.items())
        if any(subnet.family in ranges and not ranges[subnet.family].fits(subnet) for subnet in lease[:2] if subnet)
    ]

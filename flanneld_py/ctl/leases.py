"""`flannelctl leases` and `flannelctl lease …`: the subnets of all nodes, as the store has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flanneld_py.core.lease import Lease, LeaseAttrs, parse_key
from flanneld_py.core.prefix import IPV4, IPV6, format_address, parse_address
from flanneld_py.ctl.daemon import NoDaemonError, ask
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.output import NOT_WELL, OK, Table, show, show_json
from flanneld_py.ctl.store import add_store_flags, read_store, work_in_etcd

if TYPE_CHECKING:
    import argparse

    from flanneld_py.ctl.subparsers import Subparsers
    from flanneld_py.store.admin import StoredLease, StoreReader
    from flanneld_py.store.etcd_admin import EtcdAdmin

_NO_RESERVATION = "a Node has its podCIDR for as long as it is there; one for a node to come cannot be kept"
_NO_RELEASE = "a Node that has left for good is deleted with what it has: kubectl delete node NAME"
_KEY = "its subnet (10.5.2.0/24), its key (10.5.2.0-24), the address of its node, or (Kubernetes) the Node's name"


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `leases` and `lease` to the command line."""
    all_of_them = subcommands.add_parser(
        "leases",
        help="the subnets of all nodes",
        description="Lists the leases in the store. Exits with 3 when there are keys that cannot be read.",
    )
    add_store_flags(all_of_them)
    all_of_them.set_defaults(run=_run_list)
    one = subcommands.add_parser("lease", help="one lease: show, reserve, release", description="Works on one lease.")
    verbs = one.add_subparsers(metavar="VERB", required=True)
    show_parser = verbs.add_parser("show", help="its node, backend and time left", description="Shows a lease.")
    reserve = verbs.add_parser(
        "reserve",
        help="keep a subnet for a node for ever",
        description="Makes a lease a reservation, which does not expire; or reserves a free subnet for a node to come.",
    )
    release = verbs.add_parser(
        "release",
        help="give the subnet of a node back that has left for good",
        description="Deletes a lease or a reservation: other nodes stop sending there, and the subnet is free.",
    )
    for parser, run in ((show_parser, _run_show), (reserve, _run_reserve), (release, _run_release)):
        parser.add_argument("lease", help=_KEY)
        add_store_flags(parser)
        parser.set_defaults(run=run)
    reserve.add_argument("--public-ip", help="the address of the node that a free subnet is reserved for")
    reserve.add_argument("--public-ipv6", help="the same for IPv6")


def describe_lease(name: str, lease: Lease) -> dict[str, Any]:
    """Return a lease as plain JSON data."""
    attrs = lease.attrs
    return {
        "key": name,
        "subnets": [str(subnet) for subnet in lease.subnets],
        "public_ip": None if attrs.public_ip is None else format_address(IPV4, attrs.public_ip),
        "public_ipv6": None if attrs.public_ipv6 is None else format_address(IPV6, attrs.public_ipv6),
        "backend": attrs.backend_type,
        "backend_data": attrs.backend_data,
        "backend_v6_data": attrs.backend_v6_data,
        "reserved": lease.reserved,
    }


def _run_list(options: argparse.Namespace) -> int:
    leases, rejected = read_store(options, lambda store: store.list_leases())
    told = [describe_lease(name, leases[name]) for name in sorted(leases, key=lambda name: _order(leases[name]))]
    if options.json:
        show_json({"leases": told, "unreadable": rejected})
    else:
        rows = [
            [
                one["key"],
                ", ".join(one["subnets"]),
                ", ".join(filter(None, (one["public_ip"], one["public_ipv6"]))),
                one["backend"] or "-",
                "reserved" if one["reserved"] else "",
            ]
            for one in told
        ]
        parts: list[str | Table] = [Table("", ("lease", "subnet", "node", "backend", ""), rows), f"{len(rows)} leases"]
        parts += [Table("cannot be read", ("key", "reason"), sorted(rejected.items()))] if rejected else []
        show(parts)
    return NOT_WELL if rejected else OK


def _order(lease: Lease) -> tuple[tuple[int, int], ...]:
    """Return what leases are sorted by: their addresses."""
    return tuple((subnet.address, subnet.length) if subnet else (0, 0) for subnet in lease[:2])


def _run_show(options: argparse.Namespace) -> int:
    found = read_store(options, lambda store: _find(store, options.lease))
    told: dict[str, Any] = {"key": found.name, "value": found.value, "seconds_left": found.seconds_left}
    if isinstance(found.lease, Lease):
        told |= describe_lease(found.name, found.lease)
    else:
        told["unreadable"] = found.lease.reason
    if options.json:
        show_json(told)
    else:
        left = "does not expire" if found.seconds_left is None else f"{found.seconds_left / 3600:.1f} h"
        shown = told | {"seconds_left": "", "subnets": ", ".join(told.get("subnets", ())), "time left": left}
        show([f"  {key:<16} {value}" for key, value in shown.items() if value not in {None, ""}])
    return NOT_WELL if "unreadable" in told else OK


async def _find(store: StoreReader, text: str) -> StoredLease:
    from flanneld_py.store.admin import normal_name

    try:
        name = normal_name(text)
    except ValueError:
        # A key that cannot be read is there to be shown and released as well.
        name = await _find_by_address(store, text) or text
    found = await store.read_lease(name)
    if found is None:
        raise CtlError(f"there is no lease {name}; flannelctl leases lists them")
    return found


async def _find_by_address(store: StoreReader, text: str) -> str | None:
    try:
        family, value = parse_address(text)
    except ValueError:
        return None
    leases, _ = await store.list_leases()
    return next((name for name, lease in leases.items() if lease.attrs[family == IPV6] == value), None)


def _run_reserve(options: argparse.Namespace) -> int:
    if options.public_ip or options.public_ipv6:
        attrs = LeaseAttrs(_parse(options.public_ip, IPV4), _parse(options.public_ipv6, IPV6), "")
        try:
            subnets = parse_key(options.lease.replace("/", "-"))
        except ValueError as error:
            raise CtlError(str(error)) from error
        work_in_etcd(options, lambda store: store.reserve(subnets, attrs), instead=_NO_RESERVATION)
        return _say(options, f"{options.lease}: reserved for the node with this address")

    async def reserve(store: EtcdAdmin) -> str:
        found = await _find(store, options.lease)
        if found.seconds_left is None:
            return f"{found.name}: is a reservation already"
        if not await store.keep_for_ever(found):
            raise CtlError(f"{found.name} was written meanwhile; try again")
        return f"{found.name}: does not expire any more; flannelctl lease release ends that"

    return _say(options, work_in_etcd(options, reserve, instead=_NO_RESERVATION))


def _parse(text: str | None, family: int) -> int | None:
    if not text:
        return None
    try:
        found, value = parse_address(text)
    except ValueError as error:
        raise CtlError(str(error)) from error
    if found != family:
        raise CtlError(f"{text} is no IPv{family} address")
    return value


def _run_release(options: argparse.Namespace) -> int:
    try:
        own = ask(options.subnet_file, "status").get("lease", {}).get("key")
    except NoDaemonError:
        own = None

    async def release(store: EtcdAdmin) -> str:
        found = await _find(store, options.lease)
        if found.name == own:
            raise CtlError(f"{found.name} is this node's own, and its daemon would take it again: stop flanneld first")
        if not await store.release(found):
            raise CtlError(f"{found.name} was written meanwhile, so its node is alive: stop flanneld there first")
        return f"{found.name}: released"

    return _say(options, work_in_etcd(options, release, instead=_NO_RELEASE))


def _say(options: argparse.Namespace, done: str) -> int:
    if options.json:
        show_json({"done": done})
    else:
        print(done)
    return OK

"""`flannelctl probe`: what the daemons' probes have found on the ways between the nodes, this node's row or all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flanneld_py.core.lease import parse_key
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.core.probe_results import LOSSY, NARROW, NO_OVERLAY, OVERLAY, UNDERLAY
from flanneld_py.ctl.daemon import add_daemon_flags, ask
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.output import NOT_WELL, OK, Table, show, show_json
from flanneld_py.ctl.peers import matches
from flanneld_py.ctl.probe_rows import RowReader

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from flanneld_py.ctl.subparsers import Subparsers

NOT_AS_IT_SHOULD_BE = frozenset({LOSSY, NARROW, NO_OVERLAY})
"""States in which packets are lost. Who answers nothing may run no prober."""
_SILENT = "silent"


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `probe` to the command line."""
    parser = subcommands.add_parser(
        "probe",
        help="latency, loss and largest packet of the ways to other nodes",
        description="Shows what the daemon's probes have found (flanneld --probe-interval). Exits with 3 where packets "
        "are lost; a node that answers no probe at all, as one of Go flannel, is shown as that and is no fault.",
    )
    parser.add_argument("peer", nargs="?", help="one of them: its address, its subnet, or the address of a pod there")
    parser.add_argument("--all", action="store_true", help="from each node to each: asks the other nodes' daemons")
    add_daemon_flags(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    told = ask(options.subnet_file, "probe")
    if "peers" not in told:
        raise CtlError("this node's flanneld sends no probes: start it with --probe-interval=10")
    if told["problem"]:
        raise CtlError(told["problem"])
    row = told["peers"]
    if options.peer:
        row = [one for one in row if matches(one, options.peer)]
        if not row:
            raise CtlError(f"no peer {options.peer} was probed yet; flannelctl peers lists them")
    if not options.all:
        show_json(row) if options.json else show(_describe_row(row, told["interval"]))
        return _judge(row)
    rows = read_all_rows(ask(options.subnet_file, "status"), told, row)
    show_json(rows) if options.json else show(describe_matrix(rows))
    return max(_judge(one["row"] or ()) for one in rows)


def _judge(row: Sequence[Mapping[str, Any]]) -> int:
    return NOT_WELL if any(one["state"] in NOT_AS_IT_SHOULD_BE for one in row) else OK


def read_all_rows(
    status: Mapping[str, Any], told: Mapping[str, Any], row: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return a row for each node: its subnet, and what it has measured, None where it does not tell."""
    own = [subnet for subnet in parse_key(status["lease"]["key"]) if subnet is not None]
    rows: list[dict[str, Any]] = []
    with RowReader(own, status["uplink"]["sources"], told["port"]) as reader:
        for subnet in own:
            of_family = [one for one in row if parse_prefix(one["subnet"]).family == subnet.family]
            rows.append({"subnet": str(subnet), "row": of_family})
            for peer in of_family:
                found = reader.read(parse_prefix(peer["subnet"]), peer["public_ip"])
                described = (
                    None if found is None else [one.describe() for one in found if one.subnet.family == subnet.family]
                )
                rows.append({"subnet": peer["subnet"], "row": described})
    return rows


def _describe_row(row: Sequence[Mapping[str, Any]], interval: float) -> list[str | Table]:
    columns = ("subnet", "node", "state", UNDERLAY, OVERLAY)
    cells = [
        [one["subnet"], one["public_ip"], one["state"], _describe_way(one[UNDERLAY]), _describe_way(one[OVERLAY])]
        for one in row
    ]
    told = f"{len(row)} peers, each probed every {interval:g} s or when it is its turn"
    return [Table("", columns, cells), told] if row else ["no peer was probed yet"]


def _describe_way(way: Mapping[str, Any]) -> str:
    if not way["sent"]:
        return "-"
    if way["lost"] == way["sent"]:
        return _SILENT
    size = f"{way['mtu'] or '?'} of {way['wanted']}" if way["mtu"] < way["wanted"] else str(way["mtu"])
    lost = [f"{way['lost']} of {way['sent']} lost"] if way["lost"] else []
    return ", ".join([f"{format_time(way['round_trip'])} ms", *lost, f"{size} bytes"])


def format_time(microseconds: int) -> str:
    """Write a round-trip time in milliseconds."""
    return f"{microseconds / 1000:.2f}" if microseconds else "-"


def describe_matrix(rows: Sequence[Mapping[str, Any]]) -> list[str | Table]:
    """Write all rows as a table: who probes stands left, who is probed above, by the same numbers."""
    subnets = [one["subnet"] for one in rows]
    table = []
    for number, one in enumerate(rows, 1):
        by_subnet = None if one["row"] is None else {peer["subnet"]: peer for peer in one["row"]}
        cells = [_describe_cell(one["subnet"], subnet, by_subnet) for subnet in subnets]
        table.append([f"{number}", one["subnet"], *cells])
    told = "milliseconds by the underlay / through the overlay; a dash: not measured; ?: this node does not tell"
    return [Table("", ["", "from", *map(str, range(1, len(rows) + 1))], table), told]


def _describe_cell(source: str, target: str, row: Mapping[str, Any] | None) -> str:
    if source == target:
        return ""
    if row is None:
        return "?"
    if target not in row:
        return "-"
    peer = row[target]
    times = " / ".join(_silent_or_time(peer[way]) for way in (UNDERLAY, OVERLAY))
    return f"{times} {peer['state']}" if peer["state"] in NOT_AS_IT_SHOULD_BE else times


def _silent_or_time(way: Mapping[str, Any]) -> str:
    lately = way["lost"] < way["sent"]
    return format_time(way["round_trip"]) if lately else _SILENT if way["sent"] else "-"

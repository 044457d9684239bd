"""Whether the daemon runs and is well by its own account: its store, its lease, and what it refuses or is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flanneld_py.ctl.checks.finding import ERROR, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flanneld_py.ctl.checks.facts import Facts

_DAY = 86_400
_SOON = 30 * _DAY
_LITTLE_LEFT = 1800
"""Seconds; the daemon renews an hour before the end."""
_NAMED = 3
_CLOCKS_APART = 30.0
"""Seconds; below, certificates and logs are none the worse."""


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield what the daemon complains of."""
    if facts.daemon is None:
        socket = facts.subnet_file.with_suffix(".sock")
        yield Finding("daemon", ERROR, f"no flanneld answers at {socket}", ("systemctl start flanneld",))
        return
    for reason in facts.daemon["missing"]:
        yield Finding("not-ready", ERROR, reason, ("flannelctl status",))
    yield from _judge_store(facts, facts.daemon.get("store", {}))
    yield from _judge_clock(facts)
    yield from _judge_configuration(facts.daemon)
    yield from _judge_leases(facts.daemon)
    yield from _judge_peers(facts.daemon)


def _judge_store(facts: Facts, store: Mapping[str, Any]) -> Iterator[Finding]:
    if store.get("trouble"):
        told = f"the store cannot be followed: {store['trouble']}; traffic goes on, changes wait"
        yield Finding("store", ERROR, told, (_look_at(store),))
    for file, expiry in facts.expiries.items():
        if isinstance(expiry, str):
            yield Finding("certificate", ERROR, f"{file}: {expiry}", (f"put a certificate at {file}",))
        elif expiry - facts.now < _SOON:
            left = (expiry - facts.now) / _DAY
            state = f"ends in {left:.0f} days" if left > 0 else f"ended {-left:.0f} days ago"
            told = f"the certificate {file} {state}"
            mend = f"put a new certificate at {file}: it is read at the next connection"
            yield Finding("certificate", WARNING if left > 0 else ERROR, told, (mend,))


def _judge_clock(facts: Facts) -> Iterator[Finding]:
    if facts.store_time is None or abs(facts.now - facts.store_time) < _CLOCKS_APART:
        return
    apart = facts.now - facts.store_time
    word = "ahead of" if apart > 0 else "behind"
    told = (
        f"this node's clock is {abs(apart):.0f} s {word} etcd's: certificates are judged by it, and logs do not match"
    )
    yield Finding("clock", WARNING, told, ("timedatectl set-ntp true",))


def _judge_configuration(daemon: Mapping[str, Any]) -> Iterator[Finding]:
    told = daemon.get("configuration") or {}
    if told.get("refused"):
        evidence = f"the configuration in the store is not followed: {told['refused']}"
        yield Finding("configuration", ERROR, evidence, ("flannelctl net show",))
    if told.get("waits_for_restart"):
        evidence = f"changes of {', '.join(told['waits_for_restart'])} wait for a restart"
        yield Finding("configuration", WARNING, evidence, ("systemctl restart flanneld",))


def _judge_peers(daemon: Mapping[str, Any]) -> Iterator[Finding]:
    reasons = list(daemon.get("unreachable", {}).items())
    for subnet, reason in reasons[:_NAMED]:
        yield Finding("unreachable", WARNING, f"{subnet}: {reason}", ("flannelctl status",))
    if len(reasons) > _NAMED:
        more = f"{len(reasons) - _NAMED} more peers"
        yield Finding("unreachable", WARNING, more, ("flannelctl status",))
    if daemon.get("rival"):
        told = f"somebody changes our entries all the time: {daemon['rival']}"
        yield Finding("rival", WARNING, told, ("flannelctl status",))


def _look_at(store: Mapping[str, Any]) -> str:
    if store["type"] == "etcd":
        return f"etcdctl --endpoints={','.join(store['endpoints'])} endpoint health"
    return "kubectl get --raw /readyz"


def _release(daemon: Mapping[str, Any], key: str) -> str:
    if daemon.get("store", {}).get("type") == "etcd":
        return f"flannelctl lease release '{key}'"
    return f"kubectl describe node, of the one that has {key}"


def _judge_leases(daemon: Mapping[str, Any]) -> Iterator[Finding]:
    lease = daemon.get("lease")
    if lease is None:
        return
    left = lease["seconds_left"]
    if left is not None and left < _LITTLE_LEFT:
        yield Finding("lease", ERROR, f"{lease['key']} ends in {left:.0f} s and is not renewed", ("flannelctl status",))
    for key, reason in list(daemon["skipped"].items())[:_NAMED]:
        yield Finding("skipped-lease", WARNING, f"{key}: {reason}", (_release(daemon, key),))
    if len(daemon["skipped"]) > _NAMED:
        yield Finding(
            "skipped-lease", WARNING, f"{len(daemon['skipped']) - _NAMED} more leases", ("flannelctl status",)
        )
    for failure in daemon["failing"][:_NAMED]:
        told = f"the kernel refuses {failure['entry']}: {failure['reason']}"
        yield Finding("refused-entry", ERROR, told, ("flannelctl status",))

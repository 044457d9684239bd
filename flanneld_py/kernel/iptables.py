"""Masquerading and acceptance as iptables rules, in chains of our own that Go flannel names the same.

What there is is read by iptables-save, and only where it differs it is written, by iptables-restore without a flush of
others' rules. Needs iptables 1.6.2 or newer. Each call starts one to four processes and waits for them.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.core.traffic_rules import Place, Rule, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.core.traffic_rules import Chain, Match, RuleSet

_PROGRAMS = {IPV4: "iptables", IPV6: "ip6tables"}
_SEARCH_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_LOCK_PATIENCE = "5"
"""Seconds to wait for other programs that change the rules."""
_TABLES = {Place.POSTROUTING: "nat", Place.FORWARD: "filter"}
_CHAINS = {Place.POSTROUTING: "FLANNEL-POSTRTG", Place.FORWARD: "FLANNEL-FWD"}
_COMMENTS = {Place.POSTROUTING: "flanneld masq", Place.FORWARD: "flanneld forward"}
_TARGETS = {
    Verdict.ACCEPT: "ACCEPT",
    Verdict.RETURN: "RETURN",
    Verdict.MASQUERADE: "MASQUERADE",
    Verdict.MASQUERADE_RANDOM: "MASQUERADE --random-fully",
}


def find_iptables(families: Sequence[int]) -> Iptables | None:
    """Return the driver, if the programs are there for all these families."""
    path = f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}"
    for family in families:
        for verb in ("save", "restore"):
            if not _is_program(f"{_PROGRAMS[family]}-{verb}", path):
                return None
    return Iptables(families, path)


def _is_program(name: str, path: str) -> bool:
    # shutil.which would bring three compression libraries with it.
    return any(folder and os.access(os.path.join(folder, name), os.X_OK) for folder in path.split(os.pathsep))


class Iptables:
    """The driver for iptables; `families` are those whose rules it looks after."""

    name = "iptables"
    port: int | None = None
    tables: frozenset[str] = frozenset()

    def __init__(self, families: Sequence[int], path: str) -> None:
        self._families = families
        self._environ = {**os.environ, "PATH": path}
        self._written: dict[tuple[int, Place], list[str]] = {}
        self._shown: dict[tuple[int, Place], list[str]] = {}

    def close(self) -> None:
        """Nothing is held; the rules stay."""

    def ensure(self, rule_sets: Sequence[RuleSet]) -> bool:
        """Have these rules, and none of ours beside them; return whether something was changed. Raises KernelError."""
        wanted = {rule_set.family: {chain.place: chain for chain in rule_set.chains} for rule_set in rule_sets}
        changed = False
        for family in self._families:
            changed |= self._ensure_family(family, wanted.get(family, {}))
        return changed

    def holds_any(self) -> bool:
        """Say whether there is a chain of ours. Raises KernelError."""
        lines = [line for family in self._families for line in self._run(family, "save", "").splitlines()]
        return any(line.startswith(f":{own} ") for line in lines for own in _CHAINS.values())

    def clear(self) -> bool:
        """Take all rules of ours away; return whether there were any. Raises KernelError."""
        return self.ensure(())

    def _ensure_family(self, family: int, chains: dict[Place, Chain]) -> bool:
        told = read_saved(self._run(family, "save", ""))
        text = ""
        for place, table in _TABLES.items():
            rules = write_rules(chains[place]) if place in chains else []
            lines = told.get(table, [])
            commands = plan_place(lines, place, rules, self._known(family, place, rules, lines))
            if commands:
                text += "\n".join((f"*{table}", *commands, "COMMIT\n"))
                self._written[family, place] = rules
        if not text:
            return False
        self._run(family, "restore", text, "-w", _LOCK_PATIENCE, "--noflush")
        return True

    def _known(self, family: int, place: Place, rules: list[str], lines: list[str]) -> list[list[str]]:
        """Return what counts as these rules: iptables may show them in other words than they were written in."""
        written = self._written.pop((family, place), None)
        if written is not None:
            shown = _rules_in(lines, _CHAINS[place])
            self._shown[family, place] = shown if len(shown) == len(written) else []
        learned = self._shown.get((family, place))
        return [rules, learned] if learned else [rules]

    def _run(self, family: int, verb: str, text: str, *arguments: str) -> str:
        command = [f"{_PROGRAMS[family]}-{verb}", *arguments]
        try:
            done = subprocess.run(
                command, input=text, env=self._environ, capture_output=True, text=True, check=False, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelError(getattr(error, "errno", None) or 110, " ".join(command), str(error)) from error
        if done.returncode:
            raise KernelError(22, " ".join(command), done.stderr.strip() or f"it ended with {done.returncode}")
        return done.stdout


def read_saved(text: str) -> dict[str, list[str]]:
    """Read what iptables-save writes: the lines of each table, chains as `:NAME …` and rules as `-A NAME …`."""
    tables: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:].strip(), [])
        elif line.startswith((":", "-A ")):
            lines.append(line.strip())
    return tables


def write_rules(chain: Chain) -> list[str]:
    """Write a chain's rules the way iptables-save does."""
    return [_write_rule(chain.place, rule) for rule in chain.rules]


def _write_rule(place: Place, rule: Rule) -> str:
    words = [f"-A {_CHAINS[place]}", _write_match("-s", rule.source), _write_match("-d", rule.destination)]
    if rule.mark:
        words.append(f"-m mark --mark {rule.mark:#x}/{rule.mark:#x}")
    words.append(f'-m comment --comment "{_COMMENTS[place]}" -j {_TARGETS[rule.verdict]}')
    return " ".join(word for word in words if word)


def _write_match(option: str, match: Match | None) -> str:
    if match is None:
        return ""
    return f"{'! ' if match.outside else ''}{option} {match.prefix}"


def plan_place(lines: list[str], place: Place, rules: list[str], known: list[list[str]]) -> list[str]:
    """Return the commands for iptables-restore that give a place these rules, from what its table holds.

    `rules` are to be in our chain, which counts as right if it holds one of `known`; without any it is to go. The jump
    to it stands at the end of the kernel's own chain, but before what drops or rejects all that is left.
    """
    own, kernels = _CHAINS[place], place.name
    outer = _rules_in(lines, kernels)
    jumps = [index for index, line in enumerate(outer) if line.endswith(f" -j {own}")]
    there = any(line.startswith(f":{own} ") for line in lines)
    deletes = [f"-D{outer[index].removeprefix('-A')}" for index in jumps]
    if not rules:
        return [f":{own} - [0:0]", *deletes, f"-X {own}"] if there else []
    commands = []
    if not there or _rules_in(lines, own) not in known:
        commands += [f":{own} - [0:0]", *rules]
    end = next((index for index, line in enumerate(outer) if _ends_all(line, kernels)), len(outer))
    if len(jumps) != 1 or jumps[0] > end:
        jump = f'-m comment --comment "{_COMMENTS[place]}" -j {own}'
        place_at = end + 1 - sum(index < end for index in jumps)
        commands += [*deletes, f"-I {kernels} {place_at} {jump}"]
    return commands


def _rules_in(lines: list[str], chain: str) -> list[str]:
    return [line for line in lines if line.startswith(f"-A {chain} ")]


def _ends_all(line: str, chain: str) -> bool:
    """Say whether a rule lets no packet past it, as the last rule of firewalld's iptables and of Red Hat's default."""
    return line.startswith((f"-A {chain} -j REJECT", f"-A {chain} -j DROP"))

import pytest

from flanneld_py.core.prefix import IPV4, parse_prefix
from flanneld_py.core.traffic_rules import Place, RuleWish, desired_rules
from flanneld_py.kernel import iptables
from flanneld_py.kernel.iptables import plan_place, read_saved, write_rules

(RULE_SET,) = desired_rules(
    [(parse_prefix("10.5.0.0/16"), parse_prefix("10.5.2.0/24"))],
    RuleWish(masquerade=True, random_ports=True, forward=True),
)
FORWARD = next(chain for chain in RULE_SET.chains if chain.place is Place.FORWARD)
RULES = write_rules(FORWARD)
JUMP = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD'
OWN = [":FLANNEL-FWD - [0:0]", *RULES]
FLUSH = ":FLANNEL-FWD - [0:0]"
APPEND = '-m comment --comment "flanneld forward" -j FLANNEL-FWD'


def plan(*lines, rules=RULES):
    return plan_place([":FORWARD DROP [0:0]", *lines], Place.FORWARD, rules, [rules])


def test_rules_are_written_as_iptables_save_shows_them():
    assert RULES == [
        '-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
        '-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
    ]


def test_what_is_right_is_left_alone():
    assert plan(*OWN, JUMP) == []
    assert plan(*OWN, "-A FORWARD -j DOCKER", JUMP, "-A FORWARD -j REJECT") == []


def test_what_is_missing_is_written():
    assert plan() == [FLUSH, *RULES, f"-I FORWARD 1 {APPEND}"]
    assert plan(*OWN, "-A FORWARD -j DOCKER") == [f"-I FORWARD 2 {APPEND}"]
    assert plan(FLUSH, RULES[0], JUMP) == [FLUSH, *RULES]
    assert plan(FLUSH, *reversed(RULES), JUMP) == [FLUSH, *RULES]


@pytest.mark.parametrize("last", ["-A FORWARD -j REJECT --reject-with icmp-host-prohibited", "-A FORWARD -j DROP"])
def test_a_jump_behind_what_ends_all_is_moved_before_it(last):
    remove = JUMP.replace("-A", "-D", 1)
    assert plan(*OWN, "-A FORWARD -j KUBE", last, JUMP) == [remove, f"-I FORWARD 2 {APPEND}"]
    assert plan(*OWN, JUMP, "-A FORWARD -j KUBE", last, JUMP) == [remove, remove, f"-I FORWARD 2 {APPEND}"]


def test_what_is_not_wanted_goes_with_its_jumps():
    assert plan(*OWN, JUMP, "-A FORWARD -j DOCKER", rules=[]) == [
        FLUSH,
        JUMP.replace("-A", "-D", 1),
        "-X FLANNEL-FWD",
    ]
    assert plan("-A FORWARD -j DOCKER", rules=[]) == []


def test_saved_tables_are_told_apart():
    saved = "# by iptables-save\n*nat\n:A - [0:0]\n-A A -j B\nCOMMIT\n*filter\n:C - [0:0]\nCOMMIT\n"
    assert read_saved(saved) == {"nat": [":A - [0:0]", "-A A -j B"], "filter": [":C - [0:0]"]}


class OtherWords:
    """An iptables that shows a rule in other words than it was written in."""

    def __init__(self, folder):
        self.folder = folder
        self.saved = folder / "saved"
        self.saved.write_text("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n")
        self.writes = folder / "writes"
        self.writes.touch()
        self._program("iptables-save", f"cat {self.saved}")
        shown = "sed -e 's/ -j ACCEPT$/ -j ACCEPT --shown-otherwise/' -e 's/^-I \\([A-Z]*\\) 1/-A \\1/'"
        self._program("iptables-restore", f"echo x >> {self.writes}; {shown} > {self.saved}")

    def _program(self, name, body):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    @property
    def count(self):
        return len(self.writes.read_text().split())


def test_rules_that_are_shown_in_other_words_are_not_written_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(iptables, "_SEARCH_PATH", "")
    other = OtherWords(tmp_path)
    driver = iptables.find_iptables([IPV4])
    assert driver.ensure([RULE_SET])
    assert [driver.ensure([RULE_SET]) for _ in range(3)] == [False] * 3
    assert other.count == 1
    other.saved.write_text(other.saved.read_text().replace("-A FLANNEL-FWD -d", "-A FLANNEL-FWD ! -d"))
    assert driver.ensure([RULE_SET])


def test_a_family_without_its_programs_has_no_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(iptables, "_SEARCH_PATH", "")
    assert iptables.find_iptables([IPV4]) is None

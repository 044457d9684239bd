import shlex

import pytest

from flanneld_py.core.prefix import IPV4, IPV6, parse_address, parse_prefix
from flanneld_py.pods import masquerade
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.result import PodAddress

POD = (
    PodAddress(parse_prefix("10.5.2.0/24"), parse_address("10.5.2.9")[1], None),
    PodAddress(parse_prefix("fd42:0:0:1::/64"), parse_address("fd42:0:0:1::9")[1], None),
)

FAKE = """\
#!/bin/sh
# Notes each call down as it was given. A check (-C) succeeds if the rule has been appended.
{ for word; do printf '%s\\037' "$word"; done; printf '\\n'; } >>"$0.calls"
case "$*" in *" -C "*) exec grep -qF -- "$(printf '%s' "$*" | sed 's/.* -C //')" "$0.rules" 2>/dev/null;; esac
case "$*" in *" -A "*) printf '%s\\n' "$*" >>"$0.rules";; esac
case "$*" in *FAIL*) echo "no such thing" >&2; exit 1;; esac
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Stand-ins for iptables on the PATH; calling it returns what they were called with."""
    for name in ("iptables", "ip6tables"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def read(name):
        file = tmp_path / f"{name}.calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [shlex.join(line.split("\037")[:-1]) for line in lines]

    return read


def test_the_chain_is_the_reference_bridges():
    # sha512("cbr0" + "c1"), as `printf cbr0c1 | sha512sum` gives it.
    assert masquerade.chain_name("cbr0", "c1") == "CNI-68f1f1eeb62cad3d0bdd579c"


def test_the_rules_of_both_families(calls):
    chain = masquerade.chain_name("cbr0", "c1")
    comment = """-m comment --comment 'name: "cbr0" id: "c1"'"""
    masquerade.ensure_masquerade("cbr0", "c1", POD)
    assert [call for call in calls("iptables") if " -C " not in call] == [
        f"-w -t nat -N {chain}",
        f"-w -t nat -A {chain} -d 10.5.2.9/24 -j ACCEPT {comment}",
        f"-w -t nat -A {chain} '!' -d 224.0.0.0/4 -j MASQUERADE {comment}",
        f"-w -t nat -A POSTROUTING -s 10.5.2.9 -j {chain} {comment}",
    ]
    assert f"-w -t nat -A {chain} -d fd42:0:0:1::9/64 -j ACCEPT {comment}" in calls("ip6tables")
    masquerade.ensure_masquerade("cbr0", "c1", POD)
    assert not [call for call in calls("iptables") if " -A " in call]


def test_they_are_taken_down_by_the_address(calls):
    chain = masquerade.chain_name("cbr0", "c1")
    masquerade.drop_masquerade("cbr0", "c1", [(IPV4, POD[0].address), (IPV6, POD[1].address)])
    assert calls("iptables") == [
        f"""-w -t nat -D POSTROUTING -s 10.5.2.9 -j {chain} -m comment --comment 'name: "cbr0" id: "c1"'""",
        f"-w -t nat -F {chain}",
        f"-w -t nat -X {chain}",
    ]
    assert len(calls("ip6tables")) == 3


def test_a_failure_says_what_iptables_said(calls):
    with pytest.raises(CniError, match="no such thing"):
        masquerade.ensure_masquerade("FAIL", "c1", POD)


def test_a_missing_iptables_is_named_with_what_helps(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(masquerade, "_SEARCH_PATH", str(tmp_path))
    with pytest.raises(CniError, match="needs iptables") as caught:
        masquerade.ensure_masquerade("cbr0", "c1", POD)
    masquerade.drop_masquerade("cbr0", "c1", [(IPV4, POD[0].address)])
    for hint in ("package iptables", '"ipMasq": false', "--ip-masq"):
        assert hint in caught.value.details

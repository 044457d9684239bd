"""resolv.conf, which `resolvConf` of the ipam part names, read as a result's dns (man 5 resolv.conf)."""

from __future__ import annotations

from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.files import read_file
from flanneld_py.pods.result import Dns


def read_resolv_conf(path: str) -> Dns:
    """Read the file. Raises OSError, CniError if there is none."""
    content = read_file(path)
    if content is None:
        raise CniError(errors.INVALID_CONFIG, f"resolvConf of ipam names {path}, which is not there")
    return parse_resolv_conf(content.decode(errors="replace"))


def parse_resolv_conf(text: str) -> Dns:
    """Read the text; nameservers, search and options add up, the last domain counts."""
    lists: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    domain = ""
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if not values or keyword[0] in "#;":
            continue
        if keyword == "domain":
            domain = values[0]
        elif keyword in lists:
            lists[keyword] += values[:1] if keyword == "nameserver" else values
    return Dns(tuple(lists["nameserver"]), domain, tuple(lists["search"]), tuple(lists["options"]))

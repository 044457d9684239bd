"""The manual pages, made of what the programs' parsers say, so that they never say anything else."""

import argparse
from collections.abc import Iterator, Sequence

from flanneld_py import __version__
from flanneld_py.cli.flanneld_flags import FLAGS
from flanneld_py.ctl.main import make_parser
from netns_lab.cli import build_parser

_FILES = (
    ("/run/flannel/subnet.env", "what this node's pods have to know: its subnet, the network, the MTU"),
    ("/etc/flanneld-py/flanneld.env", "flags for the systemd unit, as variables"),
)


def flanneld_page() -> str:
    """Return flanneld(8)."""
    lines = [
        _title("FLANNELD", 8),
        ".SH NAME",
        r"flanneld \- the overlay network of pods and containers",
        ".SH SYNOPSIS",
        ".B flanneld",
        "[\\fIflags\\fR]",
        ".SH DESCRIPTION",
        "Leases a subnet for this node in etcd or Kubernetes, and keeps the kernel's routes, neighbours and forwarding",
        "entries as the leases of all other nodes say. Compatible with Go flannel. What it made stays when it ends.",
        ".SH FLAGS",
        "Each is also a variable: \\-\\-etcd\\-prefix is FLANNELD_ETCD_PREFIX. A flag wins over its variable.",
    ]
    for flag in FLAGS:
        default = (
            "" if flag.default in {None, "", ()} or (flag.is_boolean and not flag.default) else f" ({flag.default})"
        )
        lines += [".TP", f".B {_roff(f'--{flag.name}')}", _roff(f"{flag.help}{default}")]
    lines.append(".SH FILES")
    for path, told in _FILES:
        lines += [".TP", f".I {_roff(path)}", _roff(told)]
    lines += [".SH EXIT STATUS", "0 stopped by a signal, 1 it cannot go on, 2 wrong use.", ".SH SEE ALSO"]
    lines.append(".BR flannelctl (1)")
    return "\n".join(lines) + "\n"


def flannelctl_page() -> str:
    """Return flannelctl(1)."""
    return _parser_page(make_parser(), "look after the flannel of this node", ".BR flanneld (8)")


def netns_lab_page() -> str:
    """Return netns-lab(1)."""
    return _parser_page(build_parser(), "whole clusters in network namespaces of one machine", ".BR flanneld (8)")


PAGES = {"man8/flanneld.8": flanneld_page, "man1/flannelctl.1": flannelctl_page, "man1/netns-lab.1": netns_lab_page}
"""What writes each page, by its place below share/man."""


def _parser_page(parser: argparse.ArgumentParser, told: str, see_also: str) -> str:
    lines = [
        _title(parser.prog.upper(), 1),
        ".SH NAME",
        _roff(parser.prog) + rf" \- {told}",
        ".SH SYNOPSIS",
        f".B {_roff(parser.prog)}",
        "\\fICOMMAND\\fR [\\fIoptions\\fR]",
    ]
    options = list(_options(parser))
    if options:
        lines += [".SH OPTIONS", *options]
    lines.append(".SH COMMANDS")
    for words, command in _commands(parser, ()):
        lines += [".SS " + _roff(" ".join(words)), _roff(command.description or ""), *_options(command)]
    lines += [".SH EXIT STATUS", _roff((parser.epilog or "").removeprefix("Exit status: ")), ".SH SEE ALSO", see_also]
    return "\n".join(lines) + "\n"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.help and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            yield from (".TP", f".B {_roff(name)}", _roff(action.help % {**vars(action), "prog": parser.prog}))


def _commands(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    choices = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not choices:
        yield tuple(words), parser
    for action in choices:
        for name, command in action.choices.items():
            yield from _commands(command, (*words, name))


def _title(name: str, section: int) -> str:
    return f'.TH {name} {section} "" "flanneld-py {__version__}"'


def _roff(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped

"""Writes the tables of docs/flags.md and docs/flannelctl.md between their marks, from the programs' own parsers.

With --check it writes nothing, and fails where a table is not as it would be written.
"""

import argparse
import sys
from pathlib import Path

from flanneld_py.cli.flanneld_flags import FLAGS
from flanneld_py.ctl.main import make_parser

DOCS = Path(__file__).parent.parent / "docs"


def flags_table() -> str:
    """Return flanneld's flags as a table."""
    rows = ["| flag | default | is |", "|---|---|---|"]
    for flag in FLAGS:
        default = ("true" if flag.default else "false") if flag.is_boolean else flag.default
        shown = "" if default in {"", None, ()} else f"`{default}`"
        rows.append(f"| `--{flag.name}` | {shown} | {flag.help} |")
    return "\n".join(rows)


def commands_table() -> str:
    """Return flannelctl's subcommands as a table."""
    rows = ["| command | is | flags of its own |", "|---|---|---|"]
    rows += [f"| `{name}` | {told} | {flags} |" for name, told, flags in _commands(make_parser(), "flannelctl")]
    return "\n".join(rows)


def _commands(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, str, str]]:
    found = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            continue
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001 - as above
        for word, child in action.choices.items():
            below = _commands(child, f"{name} {word}")
            found += below or [(_usage(child, f"{name} {word}"), helps[word], _flags(child))]
    return found


def _usage(parser: argparse.ArgumentParser, name: str) -> str:
    places = [action for action in parser._actions if not action.option_strings]  # noqa: SLF001 - as above
    words = [str(action.metavar or ("|".join(action.choices) if action.choices else action.dest)) for action in places]
    words = [word if "|" in word else word.upper() for word in words]
    shown = [
        f"[{word} …]" if action.nargs == "*" else f"[{word}]" if action.nargs == "?" else word
        for word, action in zip(words, places, strict=True)
    ]
    return " ".join([name, *(one.replace("|", "\\|") for one in shown)])


def _flags(parser: argparse.ArgumentParser) -> str:
    common = ("--help", "--json", "--subnet-file", "--etcd-", "--kube", "--net-config-path")
    own = [action.option_strings[-1] for action in parser._actions if action.option_strings]  # noqa: SLF001 - as above
    return ", ".join(f"`{flag}`" for flag in own if not flag.startswith(common))


TABLES = {"flags.md": flags_table, "flannelctl.md": commands_table}


def main(words: list[str]) -> int:
    """Write or check all tables, and return the exit status."""
    status = 0
    for name, make in TABLES.items():
        file = DOCS / name
        text = file.read_text(encoding="utf-8")
        head, _, rest = text.partition("<!-- table -->\n")
        _, _, tail = rest.partition("<!-- end of table -->\n")
        fresh = f"{head}<!-- table -->\n{make()}\n<!-- end of table -->\n{tail}"
        if fresh != text and "--check" in words:
            sys.stderr.write(f"{file} is out of date: run make docs\n")
            status = 1
        elif fresh != text:
            file.write_text(fresh, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

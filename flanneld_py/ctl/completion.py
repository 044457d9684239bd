"""`flannelctl completion SHELL`: what the shell needs to complete flannelctl's words, written from its own parser."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from flanneld_py.ctl.output import OK

if TYPE_CHECKING:
    from flanneld_py.ctl.subparsers import Subparsers

_BASH = """\
_flannelctl() {{
    local words place word
    place=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$place $word" in
{descents}
        esac
    done
    case "$place" in
{choices}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -F _flannelctl flannelctl
"""
_ZSH = """\
#compdef flannelctl
_flannelctl() {{
    local place="" word
    local -a offered
    for word in "${{words[@]:1:$((CURRENT - 2))}}"; do
        case "$place $word" in
{descents}
        esac
    done
    case "$place" in
{choices}
    esac
    compadd -a offered || _files
}}
compdef _flannelctl flannelctl
"""
_SHELLS = ("bash", "zsh", "fish")


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `completion` to the command line."""
    parser = subcommands.add_parser(
        "completion",
        help="words for the shell to complete",
        description='Prints a script for the shell: eval "$(flannelctl completion bash)", or put it where the shell '
        "looks, as /etc/bash_completion.d/flannelctl or ~/.config/fish/completions/flannelctl.fish.",
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    print(encode_completion(options.shell, list_words(options.whole)), end="")
    return OK


def list_words(parser: argparse.ArgumentParser, place: str = "") -> dict[str, list[str]]:
    """Return the words that may stand at each place, a place being the subcommands so far; subcommands come first."""
    found: dict[str, list[str]] = {place: []}
    below: dict[str, list[str]] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for name, child in action.choices.items():
                found[place].append(name)
                below.update(list_words(child, f"{place} {name}"))
        elif action.option_strings:
            found[place].append(action.option_strings[-1])
        elif action.choices:
            found[place] += list(action.choices)
    return found | below


def encode_completion(shell: str, words: dict[str, list[str]]) -> str:
    """Write the script of a shell."""
    if shell == "fish":
        return "".join(_fish_line(place, word) for place, there in words.items() for word in there)
    descents = "\n".join(f'            "{place}") place="{place}" ;;' for place in words if place)
    script, choice = (_BASH, 'words="{}"') if shell == "bash" else (_ZSH, "offered=({})")
    choices = "\n".join(f'        "{place}") {choice.format(" ".join(there))} ;;' for place, there in words.items())
    return script.format(descents=descents, choices=choices)


def _fish_line(place: str, word: str) -> str:
    path = place.split()
    seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in path) or "__fish_use_subcommand"
    given = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
    return f"complete -c flannelctl -f -n '{seen}' {given}\n"

"""Quotes the interpreter's path in the scripts of a virtual environment whose folder has an unusual name.

Where the path has blanks, pip starts its scripts by /bin/sh with the path in double quotes, but leaves `$` and the
like in it as they are, for the shell to expand. Usage: quote_paths.py FOLDER-OF-SCRIPTS
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_HEADER = re.compile(rb"#!/bin/sh\n'''exec' \"(?P<path>[^\n]*)\" \"\$0\" \"\$@\"\n")
_SPECIAL = re.compile(rb'(?<!\\)[$`"]')


def main() -> None:
    """Rewrite the scripts that need it."""
    for script in Path(sys.argv[1]).iterdir():
        text = script.read_bytes()
        header = _HEADER.match(text)
        if header is not None:
            quoted = _SPECIAL.sub(rb"\\\g<0>", header["path"])
            script.write_bytes(text[: header.start("path")] + quoted + text[header.end("path") :])


main()

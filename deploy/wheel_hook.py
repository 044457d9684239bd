"""Adds the manual pages to the wheel, written from the programs' own parsers, for share/man."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):
    """The hook, which hatchling finds by its base class."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages, and have them taken in; an editable installation has none."""
        if version == "editable":
            return
        sys.path[:0] = [self.root, str(Path(self.root) / "deploy")]
        from man_pages import PAGES

        self._scratch = tempfile.TemporaryDirectory()
        for place, write in PAGES.items():
            file = Path(self._scratch.name) / Path(place).name
            file.write_text(write(), encoding="ascii")
            build_data["shared_data"][str(file)] = f"share/man/{place}"

    def finalize(self, version: str, _build_data: dict[str, Any], _artifact: str) -> None:
        """Remove what was written."""
        if version != "editable":
            self._scratch.cleanup()

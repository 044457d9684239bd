"""NodeWatch: all Nodes as they are and as they change, across every failure of the API server.

Owns the position in the API's history and the reconnecting: list in pages, watch from there on, resume behind what was
applied last, list anew where history was lost. Nodes are trimmed as they come; knows nothing of leases.
(Kubernetes API concepts: "Efficient detection of changes", "Retrieving large results sets in chunks".)
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flanneld_py.core.errors import StoreError
from flanneld_py.store.kube_errors import GoneError
from flanneld_py.store.kube_node import NodeRecord, trim_node
from flanneld_py.store.trouble import Trouble

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Sequence

    from flanneld_py.store.kube_client import KubeClient

logger = logging.getLogger(__name__)

NODES = "/api/v1/nodes"
PAGE_SIZE = 250
"""Nodes a page: at 10 kB each what is in memory at once, and what the event loop waits for, stay small."""
WATCH_SECONDS = (240, 480)
"""How long a watch may last until the server ends it: spread, so that not all nodes come back at once."""
SHORTEST_WATCH = 1.0
"""Seconds that a watch lasts at least unless something is wrong that the server does not tell."""
LONGEST_SILENCE = 90.0
"""Seconds without a word after which a watch is opened anew; bookmarks come about every minute."""
_GONE = 410


@dataclass(frozen=True, slots=True)
class NodePage:
    """A part of a new list; with the `first` all that was known is void, with the `last` the list is complete."""

    nodes: Sequence[NodeRecord]
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One Node was written or, if `is_gone`, deleted."""

    node: NodeRecord
    is_gone: bool


class NodeWatch:
    """One watch of all Nodes; `trouble` says why it cannot be followed now."""

    def __init__(self, client: KubeClient, prefix: str, rng: random.Random) -> None:
        self.trouble = Trouble("nodes", rng)
        self._client = client
        self._prefix = prefix
        self._rng = rng
        self._version: str | None = None  # up to which all has been applied

    async def follow(self) -> AsyncGenerator[NodePage | NodeChange, None]:
        """Yield a list in pages, then changes, then whatever comes next; never end and never raise StoreError."""
        while True:
            try:
                if self._version is None:
                    async with aclosing(self._list()) as pages:
                        async for page in pages:
                            yield page
                else:
                    await self._check_history()
                began = asyncio.get_running_loop().time()
                async with aclosing(self._watch()) as changes:
                    async for change in changes:
                        yield change
                if asyncio.get_running_loop().time() - began > SHORTEST_WATCH:
                    continue  # the server has ended it in time
            except GoneError as error:
                logger.warning("watch begins anew: nodes reason=%s", error)
                self._version = None
            except StoreError as error:
                self.trouble.note(str(error))
            await asyncio.sleep(self.trouble.next_delay())

    async def _check_history(self) -> None:
        """Ask whether the API server has gone back in history: a watch from its future would be silent until then."""
        known, current = self._version or "", _version_of(await self._client.get(NODES, {"limit": "1"}))
        if not current.isdecimal() or not known.isdecimal() or int(current) < int(known):
            raise GoneError(f"the API server was restored: version {current}, known {known}")

    async def _list(self) -> AsyncGenerator[NodePage, None]:
        query = {"limit": str(PAGE_SIZE)}
        first = True
        while True:
            told = await self._client.get(NODES, query)
            version, more = _version_of(told), _metadata(told).get("continue")
            items = told.get("items") or []
            del told
            yield NodePage(self._trim(items), first=first, last=not more)
            first = False
            if not more:
                break
            query["continue"] = str(more)
        self._version = version

    def _trim(self, items: list[Any]) -> list[NodeRecord]:
        nodes = []
        while items:  # each is let go of when it is trimmed
            try:
                nodes.append(trim_node(items.pop(), self._prefix))
            except (ValueError, AttributeError, TypeError) as error:
                logger.warning("node skipped: reason=%s", error)
        return nodes

    async def _watch(self) -> AsyncGenerator[NodeChange, None]:
        query = {
            "watch": "1",
            "resourceVersion": self._version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._rng.randint(*WATCH_SECONDS)),
        }
        async with self._client.watch(NODES, query, LONGEST_SILENCE) as lines:
            self.trouble.clear()
            async for line in lines:
                self.trouble.settle()
                kind, node = _parse_event(line)
                change = None if kind == "BOOKMARK" else NodeChange(self._trim_one(node), kind == "DELETED")
                if change is not None:
                    yield change
                self._version = _version_of(node)

    def _trim_one(self, node: dict[str, Any]) -> NodeRecord:
        try:
            return trim_node(node, self._prefix)
        except (ValueError, AttributeError, TypeError) as error:
            raise StoreError(f"the Kubernetes API tells of something that is no Node: {error}") from error


def _parse_event(line: bytes) -> tuple[str, dict[str, Any]]:
    """Read a watch event; raise GoneError where history is lost, StoreError for another error of the server's."""
    try:
        event = json.loads(line)
        kind, node = event["type"], event["object"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError("the Kubernetes API's watch tells something that is no event") from error
    if kind == "ERROR":
        message = f"the Kubernetes API ended the watch: {str(node.get('message'))[:300]}"
        raise GoneError(message) if node.get("code") == _GONE else StoreError(message)
    return kind, node


def _metadata(told: dict[str, Any]) -> dict[str, Any]:
    metadata = told.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _version_of(told: dict[str, Any]) -> str:
    return str(_metadata(told).get("resourceVersion") or "")

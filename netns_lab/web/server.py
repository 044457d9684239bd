"""The web server: the page's files, what the feeds tell as server-sent events, and the faults that are clicked.

It listens where its user's browser is, outside the lab, on the loopback address only, and works inside. A fault is
done only for a page that came from here: other sites' pages and other names for this address are turned away.
"""

import asyncio
import json
import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from importlib import resources
from urllib.parse import urlsplit

from aiohttp import web

from netns_lab.errors import LabError
from netns_lab.faults import MEMBER_FAULTS, NODE_FAULTS, Lab, do_fault
from netns_lab.web.feeds import Json, feed_journal, feed_reach, feed_state, start_feed

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TYPES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
EVENTS_KEPT = 200
LINE_LIMIT = 1 << 22
OWN_NAMES = frozenset({"localhost", "127.0.0.1"})


def serve(lab: Lab, listening: socket.socket) -> int:
    """Serve until interrupted; in a process with a single thread, inside the lab."""
    descriptors = [start_feed(feed, lab) for feed in (feed_reach, feed_state, feed_journal)]
    asyncio.run(_serve(lab, listening, descriptors))
    return 0


async def _serve(lab: Lab, listening: socket.socket, descriptors: list[int]) -> None:
    page = Page(lab)
    application = web.Application(middlewares=[_turn_strangers_away])
    application.router.add_get("/", _file("page.html"))
    application.router.add_get("/page.css", _file("page.css"))
    application.router.add_get("/page.js", _file("page.js"))
    application.router.add_get("/events", page.answer_events)
    application.router.add_post("/faults", page.answer_fault)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    async with asyncio.TaskGroup() as group:
        for descriptor in descriptors:
            group.create_task(page.take_lines(descriptor))


@web.middleware
async def _turn_strangers_away(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer only who asks for this machine by its own name, from a page of ours (DNS rebinding, request forgery)."""
    origin = request.headers.get("Origin")
    if urlsplit(f"//{request.host}").hostname not in OWN_NAMES or (
        origin is not None and urlsplit(origin).netloc != request.host
    ):
        raise web.HTTPForbidden(text="ask at http://127.0.0.1, from the lab's own page\n")
    return await handler(request)


def _file(name: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        text = resources.files("netns_lab.web").joinpath(name).read_text()
        headers = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'self'"}
        return web.Response(text=text, content_type=TYPES[name], headers=headers)

    return answer


class Page:
    """What all open pages show: the last of each kind that the feeds told, and the latest events."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._last: dict[str, Json] = {"faults": {"faults": _describe_faults()}}
        self._events: deque[Json] = deque(maxlen=EVENTS_KEPT)
        self._open: set[asyncio.Queue[Json]] = set()

    async def take_lines(self, descriptor: int) -> None:
        """Take what a feed tells, until it ends."""
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb"))
        while line := await reader.readline():
            self.tell(json.loads(line))
        raise LabError("a feed of the page has ended; is the lab still there?")

    def tell(self, told: Json) -> None:
        """Show something on all open pages, and on those that will be opened."""
        kind = next(iter(told))
        if kind == "event":
            self._events.append(told)
        else:
            self._last[kind] = told
        for queue in self._open:
            queue.put_nowait(told)

    async def answer_events(self, request: web.Request) -> web.StreamResponse:
        """Stream all that there is to show, then what is new (HTML standard, "Server-sent events")."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        queue: asyncio.Queue[Json] = asyncio.Queue()
        for told in (*self._last.values(), *self._events):
            queue.put_nowait(told)
        self._open.add(queue)
        try:
            while True:
                await response.write(b"data: " + json.dumps(await queue.get()).encode() + b"\n\n")
        except ConnectionError:
            return response
        finally:
            self._open.discard(queue)

    async def answer_fault(self, request: web.Request) -> web.Response:
        """Do a fault that was clicked: {"fault": name, "target": node or etcd member}."""
        try:
            asked = await request.json()
            name, target = asked["fault"], asked["target"]
            done = do_fault(self._lab, name, target)
        except LabError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        except (ValueError, KeyError, TypeError) as error:
            raise web.HTTPBadRequest(text='expected {"fault": NAME, "target": NODE}\n') from error
        self.tell({"event": {"time": time.time(), "place": "you", "text": done}})
        return web.Response(text=f"{done}\n")


def _describe_faults() -> Json:
    return {
        "node": [{"name": name, "label": fault.label} for name, fault in NODE_FAULTS.items()],
        "etcd": [{"name": name, "label": fault.label} for name, fault in MEMBER_FAULTS.items()],
    }

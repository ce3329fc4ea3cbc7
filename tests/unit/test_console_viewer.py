"""One viewer's stream: bounded, honest about what it lost, and ended with a word."""

import asyncio
from typing import Any, cast

import msgspec
from aiohttp import web

from gateway.console_events import Filters
from gateway.console_hub import FRAMES_MAX, Viewer, frame_of
from gateway.console_scope import View
from gateway.directory import Directory
from gateway.roles import Principal


class Line:
    """What a browser's end of the line took."""

    def __init__(self) -> None:
        self.took = b""

    async def write(self, content: bytes) -> None:
        self.took += content

    def events(self) -> list[tuple[str, Any]]:
        parts = [part.split("\n") for part in self.took.decode().split("\n\n") if part]
        return [
            (part[0].removeprefix("event: "), msgspec.json.decode(part[-1].removeprefix("data: "))) for part in parts
        ]


def viewer() -> Viewer:
    return Viewer(View(Principal("auditor"), Directory()), ("tail",), Filters(), lambda: True)


async def told_by(one: Viewer) -> list[tuple[str, Any]]:
    line = Line()
    one.leave("enough")
    async with asyncio.timeout(5):
        await one.pump(cast(web.StreamResponse, line))
    return line.events()


async def test_who_reads_in_time_loses_nothing() -> None:
    one = viewer()
    for n in range(FRAMES_MAX):
        one.offer(frame_of("tail", {"n": n}), 3)
    assert [name for name, _ in await told_by(one)] == ["tail"] * FRAMES_MAX + ["bye"]


async def test_who_is_too_slow_loses_the_oldest_and_is_told_how_many_first() -> None:
    one = viewer()
    for n in range(FRAMES_MAX + 5):
        one.offer(frame_of("tail", {"n": n}), 3)
    (first, lost), *rest = await told_by(one)
    assert (first, lost) == ("lost", {"frames": 5, "events": 15, "batches": 0})
    assert [body["n"] for name, body in rest if name == "tail"] == list(range(5, FRAMES_MAX + 5))
    assert rest[-1] == ("bye", {"why": "enough"})


async def test_a_frame_names_the_position_and_stays_on_one_line() -> None:
    frame = frame_of("now", {"text": "two\nlines \u2028 and <b>"}, "0:1,control:2")
    assert frame.startswith(b"event: now\nid: 0:1,control:2\ndata: ")
    assert frame.count(b"\n") == 4

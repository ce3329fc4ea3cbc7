"""Key events as evdev hands them over, for tests, fuzz and bench: written from linux/input.h, not from our decoder."""

import struct
from collections.abc import Iterable, Sequence

EV_SYN, EV_KEY, EV_MSC = 0, 1, 4
SYN_DROPPED = 3
SHIFT, CTRL, ALT, ALTGR, META, CAPS_LOCK, NUM_LOCK, ENTER, TAB, SPACE = 42, 29, 56, 100, 125, 58, 69, 28, 15, 57
KP = dict(zip("7894561230", (71, 72, 73, 75, 76, 77, 79, 80, 81, 82), strict=True))
# Codes of the US board by what they make, for texts; SHIFTED ones with shift.
US = {char: code for code, char in enumerate("1234567890-=", 2)}
US |= {char: code for code, char in enumerate("qwertyuiop[]", 16)}
US |= {char: code for code, char in enumerate("asdfghjkl;'`", 30)}
US |= {char: code for code, char in enumerate("\\zxcvbnm,./", 43)} | {" ": SPACE, "\t": TAB}
SHIFTED = dict(zip('!@#$%^&*()_+{}:"~|<>?', "1234567890-=[];'`\\,./", strict=True))

Stroke = tuple[int, ...]  # the key, and before it what is held meanwhile


def event(at_ms: float, kind: int, code: int, value: int) -> bytes:
    us = round(at_ms * 1000)
    return struct.pack("@llHHi", us // 1_000_000, us % 1_000_000, kind, code, value)


def report(at_ms: float, *changes: tuple[int, int]) -> bytes:
    """What one report of the device becomes: (key code, 1 down or 0 up) in its order, then SYN_REPORT."""
    return b"".join(event(at_ms, EV_KEY, code, value) for code, value in changes) + event(at_ms, EV_SYN, 0, 0)


def dropped(at_ms: float) -> bytes:
    """The kernel's buffer was full; it goes on with the report after this one."""
    return event(at_ms, EV_SYN, SYN_DROPPED, 0) + event(at_ms, EV_KEY, 30, 1) + event(at_ms, EV_SYN, 0, 0)


def strokes(text: str) -> list[Stroke]:
    """How a scanner set to US types `text`; control characters with Ctrl, CR as Enter."""
    return [_stroke(char) for char in text]


def _stroke(char: str) -> Stroke:
    if char == "\r":
        return (ENTER,)
    if char in US:
        return (US[char],)
    if char in SHIFTED:
        return (SHIFT, US[SHIFTED[char]])
    if ord(char) < 0x20:
        return (CTRL, *_stroke(chr(ord(char) | 0x40).lower()))
    return (SHIFT, US[char.lower()])


def typed(keys: Iterable[Stroke], at_ms: float, step_ms: float = 8) -> tuple[bytes, float]:
    """Two reports a stroke, down and up, `step_ms` from one stroke to the next; the events and when they end."""
    wire = bytearray()
    for stroke in keys:
        wire += report(at_ms, *((code, 1) for code in stroke))
        wire += report(at_ms + step_ms / 2, *((code, 0) for code in reversed(stroke)))
        at_ms += step_ms
    return bytes(wire), at_ms


def scan(text: str, at_ms: float = 1000, step_ms: float = 8, end: Sequence[Stroke] = ((ENTER,),)) -> bytes:
    return typed([*strokes(text), *end], at_ms, step_ms)[0]

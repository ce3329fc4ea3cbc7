"""A HID report descriptor becomes the places of its fields. Pure; the descriptor is a device's word, and not believed.

The format is that of the Device Class Definition for HID 1.11, section 6.2.2: items of one prefix byte (size, type,
tag) and up to four bytes. Global items hold until they are changed, local ones until the next main item. Ranges of
usages are kept as ranges, so that a short descriptor cannot grow memory.
"""

import enum
from collections.abc import Iterator

import msgspec

DESCRIPTOR_BYTES_MAX = 4096  # HID_MAX_DESCRIPTOR_SIZE of the kernel
REPORT_BITS_MAX = 16384 * 8  # HID_MAX_BUFFER_SIZE of the kernel
DEPTH_MAX = 32  # of collections and of pushed states; devices use three or four
LONG_ITEM = 0xFE
CONSTANT = 1  # bit of a main item: padding


class DescriptorFault(Exception):
    """The descriptor is damaged; the text says what is wrong and at which byte."""


class Kind(enum.IntEnum):
    """Tags of the main items that describe reports."""

    INPUT = 0x8
    OUTPUT = 0x9
    FEATURE = 0xB


class Field(msgspec.Struct, frozen=True):
    """`count` equal elements of a report, one after the other. Usages are `page << 16 | id`."""

    kind: Kind
    report_id: int
    bit_at: int  # behind the byte of the report id
    bits: int  # of one element
    count: int
    usages: tuple[tuple[int, int], ...]  # ranges, first and last; the last usage stands for all further elements
    constant: bool
    collections: tuple[int, ...]  # usages, outermost first

    def run_of(self, usage: int) -> tuple[int, int]:
        """Index of the first element with this usage, and how many follow each other. (0, 0): none."""
        at = 0
        for number, (first, last) in enumerate(self.usages, 1):
            if first <= usage <= last and at + usage - first < self.count:
                index = at + usage - first
                ends_list = number == len(self.usages) and usage == last
                return index, self.count - index if ends_list else 1
            at += last - first + 1
        return 0, 0


class Descriptor(msgspec.Struct, frozen=True):
    fields: tuple[Field, ...]
    bits: dict[tuple[Kind, int], int]  # (kind, report id) -> length of the report behind its id
    has_ids: bool  # each report begins with its id


class _Globals(msgspec.Struct, frozen=True):
    page: int = 0
    size: int = 0
    count: int = 0
    report_id: int = 0


class _Parser:
    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.bits: dict[tuple[Kind, int], int] = {}
        self._now = _Globals()
        self._pushed: list[_Globals] = []
        self._collections: list[int] = []
        self._clear_locals()

    def _clear_locals(self) -> None:
        self._usages: list[tuple[int, int]] = []
        self._first: int | None = None

    def take(self, kind: int, tag: int, value: int, size: int) -> str:
        """What is wrong with the item, or ""."""
        match kind:
            case 0:
                return self._take_main(tag, value)
            case 1:
                return self._take_global(tag, value)
            case 2:
                return self._take_local(tag, value, size)
            case _:
                return "an item of reserved type"

    def _take_main(self, tag: int, value: int) -> str:
        fault = ""
        if tag in (Kind.INPUT, Kind.OUTPUT, Kind.FEATURE):
            fault = self._add_field(Kind(tag), value)
        elif tag == 0xA:
            self._collections.append(self._usages[0][0] if self._usages else 0)
            fault = "collections too deep" if len(self._collections) > DEPTH_MAX else ""
        elif tag == 0xC:
            if not self._collections:
                return "an end without a collection"
            self._collections.pop()
        self._clear_locals()
        return fault

    def _add_field(self, kind: Kind, value: int) -> str:
        now = self._now
        at = self.bits.get((kind, now.report_id), 0)
        end = at + now.size * now.count
        if end > REPORT_BITS_MAX or now.count > REPORT_BITS_MAX:
            return "a report that is too long"
        usages, constant = tuple(self._usages), bool(value & CONSTANT)
        collections = tuple(self._collections)
        self.bits[kind, now.report_id] = end
        self.fields.append(Field(kind, now.report_id, at, now.size, now.count, usages, constant, collections))
        return ""

    def _take_global(self, tag: int, value: int) -> str:
        replace = msgspec.structs.replace
        match tag:
            case 0x0:
                self._now = replace(self._now, page=value & 0xFFFF)
            case 0x7:
                self._now = replace(self._now, size=value)
            case 0x8:
                if not 0 < value < 256:
                    return f"report id {value}"
                self._now = replace(self._now, report_id=value)
            case 0x9:
                self._now = replace(self._now, count=value)
            case 0xA:
                self._pushed.append(self._now)
                return "pushes too deep" if len(self._pushed) > DEPTH_MAX else ""
            case 0xB:
                if not self._pushed:
                    return "a pop without a push"
                self._now = self._pushed.pop()
        return ""

    def _take_local(self, tag: int, value: int, size: int) -> str:
        usage = value if size == 4 else self._now.page << 16 | value
        if tag == 0x0:
            self._usages.append((usage, usage))
        elif tag == 0x1:
            self._first = usage
        elif tag == 0x2:
            if self._first is None or self._first > usage:
                return "a usage maximum below its minimum"
            self._usages.append((self._first, usage))
            self._first = None
        return ""


def parse_descriptor(octets: bytes) -> Descriptor:
    """Raises `DescriptorFault`."""
    if len(octets) > DESCRIPTOR_BYTES_MAX:
        raise DescriptorFault(f"report descriptor of {len(octets)} bytes, at most {DESCRIPTOR_BYTES_MAX}")
    parser = _Parser()
    for at, kind, tag, value, size in _short_items(octets):
        if fault := parser.take(kind, tag, value, size):
            raise DescriptorFault(f"report descriptor: {fault} at byte {at}")
    has_ids = any(report_id for _, report_id in parser.bits)
    if has_ids and any(not report_id for _, report_id in parser.bits):
        raise DescriptorFault("report descriptor: some reports have an id, and some have none")
    return Descriptor(tuple(parser.fields), parser.bits, has_ids)


def _short_items(octets: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Place, type, tag, unsigned value and its size of each short item; long ones say nothing that is defined."""
    at = 0
    while at < len(octets):
        prefix = octets[at]
        size = octets[at + 1] + 2 if prefix == LONG_ITEM and at + 1 < len(octets) else (0, 1, 2, 4)[prefix & 3]
        if at + 1 + size > len(octets):
            raise DescriptorFault(f"report descriptor: cut off at byte {at}")
        if prefix != LONG_ITEM:
            value = int.from_bytes(octets[at + 1 : at + 1 + size], "little")
            yield at, prefix >> 2 & 3, prefix >> 4, value, size
        at += 1 + size

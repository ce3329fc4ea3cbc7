"""What the text in a barcode means: signed, typed and foreign codes. Pure.

Theory of operation. A code is a bearer secret, so what leaves this module is never the code but its campaign
and serial or its keyed hash, and no refusal quotes any part of the text. The kind is told by prefix, never by
length:

1. `T1` (or `t1`): ours, signed. 32 base32hex characters (RFC 4648 section 7, upper case, no padding) spell 20
   bytes, big-endian:

       key_id u8 | campaign u32 | serial u40 | MAC 80 bit
       MAC = BLAKE2b-80(key, person "tillgate-sign-1", the ten bytes before it)

   That is 34 characters of the QR alphanumeric set: version 2 at level M. The MAC is checked before anything
   is looked up; a guess is right once in 2^80. Lower case is accepted: a wedge with Caps Lock on sends it.
   A text that begins with T1 and is not of this form is UNREADABLE, never foreign: a cut scan must say so.
   A maker's own codes that begin with T1 are therefore refused at import.
2. 16 decimal digits, grouped or not: typed. 15 random digits and a Damm check digit. A wrong one is a
   mistyped code, so foreign codes of exactly 16 digits must pass the same check; those that do not are
   refused at import (`import_spelling`), where somebody can act on it, instead of failing at a till.
3. Anything else printable: foreign, as its maker wrote it; GS1 coupons (AI 8112) with their GS separators.

Typed and foreign codes have one identity, a 16-byte hash of the normalised text, keyed with the deployment's
pepper, so that import and scan meet at the same bytes whatever the scanner added.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from typing import Literal

import msgspec

from gateway.messages import CODE_CHARS_MAX, Verdict

PREFIX = "T1"
KEY_BYTES = 32
SIGNED_CHARS = 34
SIGNATURE_MARK, SIGNATURE_CHARS = ".", 103  # what follows a signed code that tills can check, too: offline_codes.py
TYPED_DIGITS = 16
CAMPAIGN_MAX = 2**32 - 1
SERIAL_MAX = 2**40 - 1

Entry = Literal["typed", "foreign"]

_SIGN_PERSON = b"tillgate-sign-1"
_HASH_PERSON = b"tillgate-code-1"
_in_signed = struct.Struct(">2xB9s10s").unpack  # 34 characters are 170 bits in 22 bytes: the prefix fills the first two
_MAC = struct.Struct(">QH")  # 64 bits, six pairs of characters and four bits; then 16 bits
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_number = int.from_bytes  # found once, not for every scan
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]

# int() also reads underscores, signs, blanks and other scripts' digits: only this form may reach it.
_clean_signed = re.compile(r"T1[0-9A-V]{32}").fullmatch
_is_signature = re.compile(rf"[0-9A-Va-v]{{{SIGNATURE_CHARS}}}").fullmatch
_not_base32hex = re.compile(r"[^0-9A-Va-v]").search
_sixteen_digits = re.compile(r"[0-9](?:[ \-\u2010-\u2015]*[0-9]){15}").fullmatch
_not_digit = re.compile(r"[^0-9]")
# Foreign beyond doubt and spelled as it is kept: nothing to normalise, a letter in it, not ours. Most imported codes.
_plainly_foreign = re.compile(
    r"(?!T1|t1)(?=[-0-9]*[A-Za-z])[0-9A-Za-z](?:[-0-9A-Za-z_./:+]{0,62}[0-9A-Za-z])?"
).fullmatch

_GS = "\x1d"
_FOLD_WIDTH = {0xFF01 + n: 0x21 + n for n in range(94)} | {0x3000: 0x20}
_NOISE = "".join(map(chr, range(0x21))) + "\x7f\xa0\ufeff"
_leading_noise = re.compile(rf"\A(?:[{re.escape(_NOISE)}]|\][A-Za-z][0-9A-F](?:\\[0-9]{{6}})?)+")

_DAMM = (  # H. M. Damm, "Total anti-symmetrische Quasigruppen", Marburg 2004: the quasigroup of order 10
    (0, 3, 1, 7, 5, 9, 8, 6, 4, 2),
    (7, 0, 9, 2, 1, 5, 4, 8, 6, 3),
    (4, 2, 0, 6, 8, 7, 1, 3, 5, 9),
    (1, 7, 5, 0, 9, 8, 3, 4, 2, 6),
    (6, 1, 2, 3, 0, 4, 5, 9, 7, 8),
    (3, 6, 7, 4, 2, 0, 9, 5, 8, 1),
    (5, 8, 6, 9, 7, 2, 0, 1, 3, 4),
    (8, 9, 4, 5, 3, 6, 2, 0, 1, 7),
    (9, 4, 3, 8, 6, 1, 7, 2, 0, 5),
    (2, 5, 8, 1, 4, 3, 6, 7, 9, 0),
)


class Signed(msgspec.Struct, frozen=True, gc=False):
    """A signed code whose MAC is right. Whether its serial was issued is not known here."""

    campaign: int
    serial: int


class Hashed(msgspec.Struct, frozen=True, gc=False):
    """A typed or foreign code by its identity, 16 bytes. Whether anybody imported it is not known here."""

    keyed_hash: bytes
    entry: Entry


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Not a code: UNREADABLE or FORGED. "Character n" in `why` counts from 1 in the normalised text.

    `why` quotes no part of the text. That of FORGED is not for the till, which hears what it hears of an
    unknown code.
    """

    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class CodeKeys:
    """The secrets behind the codes. A dataclass, so that repr can leave the secrets out.

    `keys`: live keys by id 0-255, 32 bytes each, two or more while one replaces another; `active`: the id
    that mints; `pepper`: 32 bytes, fixed for the life of a deployment; `retired`: ids that were live once.
    ValueError names what does not fit, by id.
    """

    keys: dict[int, bytes] = field(repr=False)
    active: int
    pepper: bytes = field(repr=False)
    retired: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for key_id, key in self.keys.items():
            if not 0 <= key_id <= 255:
                raise ValueError(f"code key id {key_id} is not in 0-255")
            if len(key) != KEY_BYTES:
                raise ValueError(f"code key {key_id} has {len(key)} bytes, {KEY_BYTES} expected")
            if key_id in self.retired:
                raise ValueError(f"code key {key_id} is both live and retired")
        if self.active not in self.keys:
            raise ValueError(f"active code key {self.active} is not among the live keys")
        if len(self.pepper) != KEY_BYTES:
            raise ValueError(f"the pepper has {len(self.pepper)} bytes, {KEY_BYTES} expected")


class KeyRing:
    """Parses and mints with one set of keys; holds a primed hash per key, so that no code pays its set-up."""

    __slots__ = ("_hasher", "_primed", "_retired")

    def __init__(self, keys: CodeKeys) -> None:
        self._primed: list[blake2b | None] = [None] * 256
        for key_id, key in keys.keys.items():
            self._primed[key_id] = _primed_with(key, key_id)
        self._hasher = blake2b(key=keys.pepper, digest_size=16, person=_HASH_PERSON)
        self._retired = keys.retired

    @property
    def key_ids(self) -> frozenset[int]:
        """Those whose codes this ring can tell."""
        return frozenset(key_id for key_id, primed in enumerate(self._primed) if primed is not None)

    def parse(self, text: str) -> Signed | Hashed | Refused:
        """What a scanner or a cashier sent, as a value; never raises. Clean signed codes are fastest."""
        return self._parse_noisy(text) if _clean_signed(text) is None else self._verify(text)

    def genuine(self, text: str) -> int:
        """campaign << 40 | serial of a clean signed code whose MAC is right; -1 for any other text (see `parse`)."""
        if _clean_signed(text) is None:
            return -1
        key_id, named, mac = _in_signed(int(text, 32).to_bytes(22, "big"))
        primed = self._primed[key_id]
        if primed is None:
            return -1
        state = primed.copy()
        state.update(named)
        return _number(named, "big") if compare_digest(state.digest(), mac) else -1

    def tag(self, text: str) -> int:
        """8 bytes of a keyed hash of any text: tells in the log whether two refused scans were the same."""
        state = self._hasher.copy()
        state.update(normalise(text).encode("utf-8", "surrogatepass"))
        return int.from_bytes(state.digest()[:8], "big")

    def mint(self, key_id: int, campaign: int, first_serial: int, count: int) -> Iterator[str]:
        """Signed codes of `count` serials in a row.

        ValueError, before the first, for a key that is not live or a number out of range.
        """
        primed = self._primed[key_id] if 0 <= key_id <= 255 else None
        if primed is None:
            raise ValueError(f"code key {key_id} is not live: nothing can be minted with it")
        if not 0 <= campaign <= CAMPAIGN_MAX:
            raise ValueError(f"campaign {campaign} is not in 0-{CAMPAIGN_MAX}")
        if count < 0 or not 0 <= first_serial <= SERIAL_MAX + 1 - count:
            raise ValueError(f"{count} serials from {first_serial} on do not fit in 0-{SERIAL_MAX}")
        state = primed.copy()
        state.update(campaign.to_bytes(4, "big"))
        head = PREFIX + _eight_chars(key_id << 32 | campaign)
        return _minted(state, head, range(first_serial, first_serial + count))

    def _verify(self, text: str) -> Signed | Refused:
        key_id, named, mac = _in_signed(int(text, 32).to_bytes(22, "big"))
        primed = self._primed[key_id]
        if primed is None:
            return self._no_key(key_id)
        state = primed.copy()
        state.update(named)
        if not compare_digest(state.digest(), mac):
            return Refused(Verdict.FORGED, "signature does not match")
        both = _number(named, "big")
        return Signed(both >> 40, both & SERIAL_MAX)

    def _no_key(self, key_id: int) -> Refused:
        why = f"key id {key_id} is retired" if key_id in self._retired else f"unknown key id {key_id}"
        return Refused(Verdict.FORGED, why)

    def _parse_noisy(self, text: str) -> Signed | Hashed | Refused:
        text = normalise(text)
        if _is_ours(text):
            text = bare(text)
            return _misspelt(text) or self._verify(text)  # int() reads either case
        unsigned = _unsigned(text)
        if isinstance(unsigned, Refused):
            return unsigned
        entry, spelling = unsigned
        return Hashed(self.identity(spelling), entry)

    def identity(self, spelling: str) -> bytes:
        """The 16 bytes that a typed or foreign code is known by; `spelling` is the one `import_spelling` gives."""
        state = self._hasher.copy()
        state.update(spelling.encode())
        return state.digest()


def spelled_by(text: str) -> tuple[int, int] | None:
    """Campaign and serial that a clean signed code spells, unchecked: for a code that was found genuine before.

    None if it has any noise around it, or is none.
    """
    text = bare(text)
    if _clean_signed(text) is None:
        return None
    number = int(text, 32) >> 80
    return number >> 40 & CAMPAIGN_MAX, number & SERIAL_MAX


def bare(text: str) -> str:
    """A normalised text without an offline code's signature, which the gateway does not need; any other as it is."""
    mark = text[SIGNED_CHARS : SIGNED_CHARS + 1]
    return text[:SIGNED_CHARS] if mark == SIGNATURE_MARK and _is_signature(text[SIGNED_CHARS + 1 :]) else text


def normalise(text: str) -> str:
    """The text without what scanners and keyboards put around it; idempotent. Case and the inside stay.

    Full-width ASCII and the ideographic space become ASCII. From the front go control characters (CR, LF,
    TAB, NUL, GS as FNC1 ...), blanks, byte order marks and AIM identifiers (ISO/IEC 15424: `]`, letter,
    modifier; with the backslash and six digits of an ECI behind it, if any); from the end control characters
    and blanks.
    """
    if not text.isascii():
        text = text.translate(_FOLD_WIDTH)
    return _leading_noise.sub("", text).rstrip(_NOISE)


def import_spelling(text: str) -> tuple[Entry, str] | Refused:
    """What a till would take a maker's code for, and its one spelling; Refused says why it could never be redeemed.

    `KeyRing.parse` of a text that passes gives a `Hashed` of the same kind, with the `identity` of this spelling.
    """
    if _plainly_foreign(text) is not None:
        return "foreign", text
    text = normalise(text)
    if _is_ours(text):
        return Refused(Verdict.UNREADABLE, f"begins with {PREFIX}, which is reserved for signed codes")
    return _unsigned(text)


def typed_code(random_15_digits: int) -> str:
    """The 16 digits to print, without grouping, for a random number below 10^15 that the caller drew."""
    assert 0 <= random_15_digits < 10**15
    digits = f"{random_15_digits:015d}"
    return f"{digits}{damm(digits)}"


def damm(digits: str) -> int:
    """The Damm check digit of ASCII digits; 0 if the last one is already their check digit.

    Finds every wrong digit and every swap of neighbours.
    """
    interim = 0
    for byte in digits.encode():
        interim = _DAMM[interim][byte & 15]  # the low half of an ASCII digit is its value
    return interim


def _primed_with(key: bytes, key_id: int) -> blake2b:
    state = blake2b(key=key, digest_size=10, person=_SIGN_PERSON)
    state.update(bytes((key_id,)))  # BLAKE2b digests the key block only when more input follows: here, once
    return state


def _minted(state: blake2b, head: str, serials: Iterable[int]) -> Iterator[str]:
    pairs, copied, mac_of = _PAIRS, state.copy, _MAC.unpack
    top, start = -1, head
    for serial in serials:  # spelled two characters, ten bits, at a time
        signing = copied()
        signing.update(serial.to_bytes(5, "big"))
        high, low = mac_of(signing.digest())
        low |= (high & 15) << 16
        if serial >> 20 != top:
            top = serial >> 20
            start = head + pairs[top >> 10] + pairs[top & 1023]
        yield (
            f"{start}{pairs[serial >> 10 & 1023]}{pairs[serial & 1023]}"
            f"{pairs[high >> 54]}{pairs[high >> 44 & 1023]}{pairs[high >> 34 & 1023]}{pairs[high >> 24 & 1023]}"
            f"{pairs[high >> 14 & 1023]}{pairs[high >> 4 & 1023]}{pairs[low >> 10]}{pairs[low & 1023]}"
        )


def _eight_chars(n: int) -> str:
    return _PAIRS[n >> 30] + _PAIRS[n >> 20 & 1023] + _PAIRS[n >> 10 & 1023] + _PAIRS[n & 1023]


def _is_ours(text: str) -> bool:
    return text[:2] in (PREFIX, PREFIX.lower())


def _misspelt(text: str) -> Refused | None:
    wrong = _not_base32hex(text)
    if wrong is not None:
        why = f"character {wrong.start() + 1} is not a letter or digit of this code (0-9, A-V)"
        return Refused(Verdict.UNREADABLE, why)
    if len(text) == SIGNED_CHARS:
        return None
    fault = "some are missing" if len(text) < SIGNED_CHARS else "there are too many"
    return Refused(Verdict.UNREADABLE, f"has {len(text)} characters, {SIGNED_CHARS} expected: {fault}")


def _unsigned(text: str) -> tuple[Entry, str] | Refused:
    """Kind and canonical spelling of a normalised text that is not ours."""
    if not text:
        return Refused(Verdict.UNREADABLE, "the scan is empty")
    if len(text) > CODE_CHARS_MAX:
        return Refused(Verdict.UNREADABLE, f"has {len(text)} characters, at most {CODE_CHARS_MAX} are allowed")
    if _sixteen_digits(text) is not None:
        digits = _not_digit.sub("", text)
        if damm(digits) != 0:
            why = f"check digit does not match: one of the {TYPED_DIGITS} digits is wrong"
            return Refused(Verdict.UNREADABLE, why)
        return "typed", digits
    if text.replace(_GS, "").isprintable():
        return "foreign", text
    place = next(n for n, char in enumerate(text, 1) if char != _GS and not char.isprintable())
    return Refused(Verdict.UNREADABLE, f"character {place} is a control or invisible character")

"""What the cashier's page shows, folded from what the till tells its screens. Pure.

Theory of operation. The page shows one scene at a time, that of the newest scan, and it stays until something newer
happens. What is told of an older scan meanwhile (a second scanner, a backlog that is answered after an outage) does
not take the scene away from the shopper in front: it is shown as `late`, beside it. Only an accepted redemption is an
accepted scene with the good tone; whatever the till does not know for certain looks and sounds unlike it. All words
are here in both languages, because each page has a switch of its own.
"""

import enum
from collections.abc import Iterable

import msgspec

from devices.feedback import (
    Mood,
    Told,
    head_and_rest,
    mood_of,
    offer_text,
    printable,
    say,
    tail_of,
    told_text,
    verdict_words,
    winner_text,
)
from devices.outbox import Answer
from devices.records import Record, is_reversible
from gateway.messages import Verdict

PAGE_NAME = "page"  # of the pages' cameras as one scanner; no other scanner may have it
RECENTS_MAX = 5  # what a cashier may still mean by "the one before"


class Kind(enum.StrEnum):
    """What a scene looks like: colour, shape and word belong together."""

    READY = "ready"
    CHECKING = "checking"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    KEPT = "kept"  # in the journal, and nothing is decided: no connection, or no answer yet
    AGAIN = "again"  # not read: the same voucher is to be scanned again
    UNDONE = "undone"
    OFFLINE = "offline"  # accepted by the till itself, at a risk that is not settled yet


class Tone(enum.StrEnum):
    NONE = "none"
    TICK = "tick"  # heard
    GOOD = "good"
    BAD = "bad"
    WAIT = "wait"
    AGAIN = "again"
    OFFLINE = "offline"


class Words(msgspec.Struct, frozen=True):
    en: str = ""
    zh: str = ""


class Scene(msgspec.Struct, frozen=True, omit_defaults=True):
    """`used_ms` and `at_ms` are UTC epoch milliseconds; empty words are not shown."""

    kind: Kind
    head: Words
    rest: Words
    tail: str = ""
    used: Words = Words()  # where and when the voucher was used before
    used_ms: int = 0
    worth: Words = Words()
    note: str = ""
    source: str = ""
    at_ms: int = 0


class Recent(msgspec.Struct, frozen=True):
    """One of the last scans, from the journal."""

    redemption_id: str  # hex
    tail: str
    kind: Kind
    head: Words
    at_ms: int
    reversible: bool


class View(msgspec.Struct, frozen=True):
    scene: Scene
    scene_id: bytes = b""  # of the scan the scene is about
    late: Scene | None = None
    notice: Words = Words()  # an answer to a command, or the gateway's words to people
    online: bool | None = None  # None: not known yet
    store: str = ""
    lost: tuple[str, ...] = ()  # scanners that are not connected
    full: bool = False  # the last scan found no room in the journal
    tone: Tone = Tone.NONE
    tones: int = 0  # how many were sounded: a page that sees the number change sounds the tone


_HEADS = {  # for texts that have no word of their own
    "ready": ("READY", "请扫码"),
    "heard": ("CHECKING", "查询中"),
    "heard_offline": ("OFFLINE: KEPT", "离线：已保存"),
    "waiting": ("WAITING", "等待结果"),
    "held": ("PLEASE WAIT", "请稍候"),
    "again": ("STILL CHECKING", "仍在查询"),
    "same_scan": ("ACCEPTED ONCE", "只核销一次"),
    "undoing": ("UNDOING", "正在撤销"),
    "same_scan_offline": ("ACCEPTED ONCE", "只核销一次"),
}
_AGAIN = Words("TRY AGAIN", "请重新扫码")
_READY_REST = Words("Scan a voucher, or type its code.", "请扫描券码，或手动输入。")
_KEPT_REST = Words(
    "Nothing is redeemed yet: give nothing. This till asks as soon as it can.",
    "尚未核销，请勿兑现。恢复连接后本机立即查询。",
)
_KINDS = {
    "heard": (Kind.CHECKING, Tone.TICK),
    "heard_offline": (Kind.KEPT, Tone.WAIT),
    "held": (Kind.KEPT, Tone.WAIT),
    "again": (Kind.CHECKING, Tone.TICK),
    "same_scan": (Kind.ACCEPTED, Tone.TICK),  # its yes was sounded once, and stands for one voucher
    "undoing": (Kind.CHECKING, Tone.TICK),
    "journal_full": (Kind.REFUSED, Tone.BAD),
    "accepted_offline": (Kind.OFFLINE, Tone.OFFLINE),
    "same_scan_offline": (Kind.OFFLINE, Tone.TICK),
    "offline_used_here": (Kind.REFUSED, Tone.BAD),
}
_NOTICES = ("no_receipt", "receipts", "notice", "open", "nothing_open", "no_such", "ambiguous", "not_open", "commands")
READY = Scene(Kind.READY, Words(*_HEADS["ready"]), _READY_REST)


def fold(view: View, told: Told, now_ms: int) -> View:
    """The view after one more thing was told."""
    change = msgspec.structs.replace
    match told.key:
        case "":
            assert told.answer
            return _answered(view, told.answer, now_ms)
        case "scanner_ready" | "scanner_lost" if told.source == PAGE_NAME:
            return view  # whoever switched a phone's camera off knows
        case "online":
            return change(view, online=True, store=printable(told.words))
        case "offline":
            return _offline(view)
        case "scanner_ready":
            return change(view, lost=tuple(name for name in view.lost if name != told.source))
        case "scanner_lost":
            return change(view, lost=tuple(sorted({*view.lost, told.source})))
        case "stopped" | "page" | "no_page" | "pair" | "no_pair":
            return view
        case key if key in _NOTICES or told.mood is Mood.PLAIN:  # whatever is plain is about no read
            return change(view, notice=Words(told_text("en", told), told_text("zh", told)))
        case _:
            return _heard(view, told, now_ms)


def recents(records: Iterable[Record]) -> list[Recent]:
    """The first few of `records`, newest first."""
    found: list[Recent] = []
    for record in records:
        if len(found) == RECENTS_MAX:
            break
        found.append(_recent(record))
    return found


def _heard(view: View, told: Told, now_ms: int) -> View:
    key = "heard_offline" if told.key == "again" and view.online is False else told.key
    kept = (Kind.KEPT, Tone.WAIT) if key.startswith("offline_") else (Kind.AGAIN, Tone.AGAIN)
    kind, tone = _KINDS.get(key, kept)
    head, rest = _words_of(key)
    scene = Scene(
        kind,
        _AGAIN if kind is Kind.AGAIN else head,
        _KEPT_REST if key == "heard_offline" else rest,
        tail_of(told.redemption_id) if told.redemption_id else "",
        worth=Words(offer_text("en", told.words), offer_text("zh", told.words)) if kind is Kind.OFFLINE else Words(),
        note=printable(told.words) if kind is Kind.KEPT else "",
        source=printable(told.source),
        at_ms=now_ms,
    )
    if told.key.startswith("same_scan") and view.scene_id == told.redemption_id:
        scene = msgspec.structs.replace(scene, worth=view.scene.worth)
    full = told.key == "journal_full" or (view.full and told.key not in ("heard", "heard_offline"))
    return _sounded(view, tone, scene=scene, scene_id=told.redemption_id, full=full, late=None, notice=Words())


def _answered(view: View, answer: Answer, now_ms: int) -> View:
    scene = _verdict_scene(answer, now_ms)
    tone = _TONES[scene.kind]
    if answer.is_fact:  # its shopper has left with the goods, whatever it came to
        return _sounded(view, Tone.TICK if mood_of(answer) is Mood.GOOD else Tone.BAD, late=scene)
    if answer.redemption_id == view.scene_id:
        return _sounded(view, tone, scene=scene)
    return _sounded(view, Tone.BAD if tone is Tone.BAD else Tone.TICK, late=scene)  # the good tone is the shopper's


_TONES = {
    Kind.ACCEPTED: Tone.GOOD,
    Kind.REFUSED: Tone.BAD,
    Kind.KEPT: Tone.WAIT,
    Kind.AGAIN: Tone.AGAIN,
    Kind.UNDONE: Tone.TICK,
}


def _verdict_scene(answer: Answer, now_ms: int) -> Scene:
    en, zh = (
        head_and_rest(verdict_words(language, answer.verdict, is_reversal=answer.is_reversal, is_fact=answer.is_fact))
        for language in ("en", "zh")
    )
    kind = _kind_of(answer)
    return Scene(
        kind,
        _AGAIN if kind is Kind.AGAIN else Words(en[0], zh[0]),
        Words(en[1], zh[1]),
        tail_of(answer.redemption_id),
        used=Words(winner_text("en", answer.winner), winner_text("zh", answer.winner)),
        used_ms=answer.winner.at_ms if answer.winner else 0,
        worth=Words(offer_text("en", answer.offer), offer_text("zh", answer.offer)),
        note=printable(answer.note or ""),
        at_ms=now_ms,
    )


def _kind_of(answer: Answer) -> Kind:
    match mood_of(answer):
        case Mood.GOOD:
            return Kind.UNDONE if answer.is_reversal else Kind.ACCEPTED
        case Mood.WAIT:
            return Kind.KEPT
        case _:
            return Kind.AGAIN if answer.verdict == Verdict.UNREADABLE and not answer.is_reversal else Kind.REFUSED


def _offline(view: View) -> View:
    """What is being asked is kept, and its answer will come later: the page must not go on saying that it checks."""
    scene = view.scene
    if scene.kind is Kind.CHECKING:
        head, _ = _words_of("heard_offline")
        scene = msgspec.structs.replace(scene, kind=Kind.KEPT, head=head, rest=_KEPT_REST)
        return _sounded(view, Tone.WAIT, scene=scene, online=False)
    return msgspec.structs.replace(view, online=False)


def _sounded(view: View, tone: Tone, **changes: object) -> View:
    return msgspec.structs.replace(view, tone=tone, tones=view.tones + 1, **changes)


def _words_of(key: str) -> tuple[Words, Words]:
    en, zh = head_and_rest(say("en", key)), head_and_rest(say("zh", key))
    head = Words(*_HEADS[key]) if key in _HEADS else Words(en[0], zh[0])
    return head, Words(en[1], zh[1])


def _recent(record: Record) -> Recent:
    if record.undone:
        kind, verdict, is_reversal = Kind.UNDONE, int(Verdict.ACCEPTED), True
    elif record.untold and not record.reversing:
        return _row(record, Kind.OFFLINE, Words(*(head_and_rest(say(w, "accepted_offline"))[0] for w in ("en", "zh"))))
    elif record.reversing or record.verdict is None:
        kind = Kind.CHECKING if record.reversing else Kind.KEPT
        return _row(record, kind, Words(*_HEADS["undoing" if record.reversing else "waiting"]))
    else:
        kind, verdict, is_reversal = _KIND_OF_VERDICT.get(record.verdict, Kind.REFUSED), record.verdict, False
    words = (head_and_rest(verdict_words(language, verdict, is_reversal=is_reversal))[0] for language in ("en", "zh"))
    return _row(record, kind, Words(*words))


_KIND_OF_VERDICT = {int(Verdict.ACCEPTED): Kind.ACCEPTED, int(Verdict.UNREADABLE): Kind.AGAIN}


def _row(record: Record, kind: Kind, head: Words) -> Recent:
    redemption_id = record.redemption_id
    return Recent(redemption_id.hex(), tail_of(redemption_id), kind, head, record.scanned_ms, is_reversible(record))

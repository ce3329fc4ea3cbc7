"""What a cashier is told about a verdict, in English and Chinese: what is so, and what to do next.

A phrase has a plain form and, where something more may be known, a detailed one that is used when all of it
is. Unknown, foreign, forged and never-issued codes have one public verdict and therefore one text: a guesser
learns nothing.
"""

import functools
import string
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from gateway.messages import PUBLIC, Verdict, Winner

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


class Phrase(NamedTuple):
    """`detailed` may name {value}, {note}, and {store}, {terminal}, {time} of the redemption in the way."""

    plain: str
    detailed: str = ""


ENGLISH = {
    Verdict.ACCEPTED: Phrase("Accepted. Complete the sale.", "Accepted: {value}. Complete the sale."),
    Verdict.REVERSED: Phrase(
        "This redemption was reversed. Do not give the goods for it. To use the voucher, scan it again."
    ),
    Verdict.CONFLICT: Phrase(
        "Accepted here while offline, but the voucher had been used elsewhere. Keep the receipt and tell "
        "your supervisor.",
        "Accepted here while offline, but the voucher had been used at {store}, till {terminal}, {time}. "
        "Keep the receipt and tell your supervisor.",
    ),
    Verdict.ID_REUSED: Phrase(
        "The till sent a number it had used before. This scan redeemed nothing. Scan again; if it happens "
        "again, restart the till and call support."
    ),
    Verdict.TERMINAL_LOCKED: Phrase(
        "Too many unknown codes at this till, so it takes no vouchers for now. Use another till, or ask "
        "your supervisor to have it unlocked.",
        "Too many unknown codes at this till, so it takes no vouchers until {note}. Use another till, or "
        "ask your supervisor to have it unlocked.",
    ),
    Verdict.UNREADABLE: Phrase(
        "The code could not be read. Make the phone's screen brighter, hold it flat and scan again, or "
        "type the number.",
        "The code could not be read ({note}). Make the phone's screen brighter, hold it flat and scan "
        "again, or type the number.",
    ),
    Verdict.UNKNOWN_CODE: Phrase(
        "No voucher has this code. Make sure you scanned the voucher and not another code. If so, do not "
        "give the goods; ask for another payment."
    ),
    Verdict.VOIDED: Phrase(
        "This voucher was withdrawn by its issuer. Do not give the goods; ask for another payment. The "
        "customer can ask whoever gave out the voucher."
    ),
    Verdict.ALREADY_REDEEMED: Phrase(
        "Already used. Do not give the goods; ask for another payment.",
        "Already used at {store}, till {terminal}, {time}. Do not give the goods; ask for another "
        "payment, and show the customer this place and time.",
    ),
    Verdict.TOO_MANY_REVERSALS: Phrase(
        "This voucher was used and reversed too often and can no longer be used. Ask for another payment. "
        "The customer can ask whoever gave out the voucher for a new one."
    ),
    Verdict.NOT_ELIGIBLE: Phrase(
        "Not valid in this store. Ask for another payment; the customer can use the voucher in the stores "
        "named in its terms."
    ),
    Verdict.CLOSED: Phrase("This campaign is over. Ask for another payment."),
    Verdict.PAUSED: Phrase(
        "This campaign is paused for the moment. The voucher is not lost: ask for another payment today, "
        "and let the customer keep it."
    ),
    Verdict.NOT_YET_VALID: Phrase(
        "Not valid yet. Ask for another payment; the customer can use the voucher later.",
        "Not valid yet: it can be used from {note}. Ask for another payment now.",
    ),
    Verdict.EXPIRED: Phrase(
        "This voucher has expired. Ask for another payment.",
        "This voucher expired at {note}. Ask for another payment.",
    ),
    Verdict.OUTSIDE_HOURS: Phrase(
        "Not valid at this day or hour. Ask for another payment; the customer can use the voucher later.",
        "Not valid at this day or hour: it can be used again from {note}. Ask for another payment now.",
    ),
    Verdict.NOT_FOUND: Phrase("No such redemption; nothing was reversed. Check the number on the receipt."),
    Verdict.NOT_YOURS: Phrase(
        "This was redeemed at another till; nothing was reversed. Reverse it at that till, or ask a supervisor."
    ),
    Verdict.WINDOW_OVER: Phrase(
        "Too late to reverse; nothing was changed. Ask your supervisor how the store makes it good to the customer."
    ),
    Verdict.DUPLICATE: Phrase(
        "This code belongs to another campaign and was not imported. Ask the maker of the list for another code."
    ),
    Verdict.UNRESOLVED: Phrase(
        "No answer yet. Do not give the goods yet and ask the customer to wait; the till keeps asking by itself."
    ),
}

CHINESE = {
    Verdict.ACCEPTED: Phrase("核销成功，请完成收银。", "核销成功：{value}，请完成收银。"),
    Verdict.REVERSED: Phrase("本次核销已撤销，请勿凭此交付商品。如需使用该券，请重新扫码。"),
    Verdict.CONFLICT: Phrase(
        "本店离线时已接受该券，但该券此前已在别处使用。请保留小票并告知主管。",
        "本店离线时已接受该券，但该券已于{time}在{store}（收银台{terminal}）使用。请保留小票并告知主管。",
    ),
    Verdict.ID_REUSED: Phrase(
        "收银台发送了用过的编号，本次扫码未核销任何券。请重新扫码；如再次出现，请重启收银台并联系技术支持。"
    ),
    Verdict.TERMINAL_LOCKED: Phrase(
        "本收银台出现过多无效券码，暂停用券。请换其他收银台，或请主管申请解锁。",
        "本收银台出现过多无效券码，{note}前暂停用券。请换其他收银台，或请主管申请解锁。",
    ),
    Verdict.UNREADABLE: Phrase(
        "无法识别券码。请顾客调亮手机屏幕、放平后重新扫码，或手动输入券号。",
        "无法识别券码（{note}）。请顾客调亮手机屏幕、放平后重新扫码，或手动输入券号。",
    ),
    Verdict.UNKNOWN_CODE: Phrase(
        "没有此券。请确认扫的是券码而非其他条码；若无误，请勿交付商品，请顾客改用其他方式付款。"
    ),
    Verdict.VOIDED: Phrase("该券已被发券方作废。请勿交付商品，请顾客改用其他方式付款，并可联系发券方查询。"),
    Verdict.ALREADY_REDEEMED: Phrase(
        "该券已被使用。请勿交付商品，请顾客改用其他方式付款。",
        "该券已于{time}在{store}（收银台{terminal}）使用。请勿交付商品，请顾客改用其他方式付款，"
        "并可向顾客出示此时间和地点。",
    ),
    Verdict.TOO_MANY_REVERSALS: Phrase(
        "该券核销又撤销的次数过多，已不能再用。请顾客改用其他方式付款，并可联系发券方换券。"
    ),
    Verdict.NOT_ELIGIBLE: Phrase("该券不适用于本店。请顾客改用其他方式付款；该券可在券面规定的门店使用。"),
    Verdict.CLOSED: Phrase("本次活动已结束。请顾客改用其他方式付款。"),
    Verdict.PAUSED: Phrase("活动暂停中，该券仍然有效。今天请顾客改用其他方式付款，并保留好该券。"),
    Verdict.NOT_YET_VALID: Phrase(
        "该券尚未生效。请顾客改用其他方式付款，该券可留待以后使用。",
        "该券尚未生效，{note}起可用。本次请顾客改用其他方式付款。",
    ),
    Verdict.EXPIRED: Phrase("该券已过期。请顾客改用其他方式付款。", "该券已于{note}过期。请顾客改用其他方式付款。"),
    Verdict.OUTSIDE_HOURS: Phrase(
        "该券在当前日期或时段不可用。请顾客改用其他方式付款，该券可留待以后使用。",
        "该券在当前日期或时段不可用，{note}起可再次使用。本次请顾客改用其他方式付款。",
    ),
    Verdict.NOT_FOUND: Phrase("没有这笔核销，未做任何撤销。请核对小票上的编号。"),
    Verdict.NOT_YOURS: Phrase("这笔核销是在其他收银台做的，未撤销。请到原收银台撤销，或请主管处理。"),
    Verdict.WINDOW_OVER: Phrase("已超过可撤销的时间，未做任何更改。请向主管询问如何补偿顾客。"),
    Verdict.DUPLICATE: Phrase("该券码已属于其他活动，未导入。请向制码方索取其他券码。"),
    Verdict.UNRESOLVED: Phrase("暂无结果。请先不要交付商品，并请顾客稍候；收银台会自动继续查询。"),
}

PHRASES: dict[Language, dict[Verdict, Phrase]] = {"en": ENGLISH, "zh": CHINESE}

# Of a reversal, two verdicts mean something else than of a redemption.
REVERSAL_PHRASES: dict[Language, dict[Verdict, Phrase]] = {
    "en": {
        Verdict.ACCEPTED: Phrase(
            "Reversed. Take the goods back or take another payment; the customer can use the voucher again."
        ),
        Verdict.REVERSED: Phrase(
            "Reversed before it took effect: nothing was redeemed. The customer can still use the voucher."
        ),
    },
    "zh": {
        Verdict.ACCEPTED: Phrase("撤销成功。请收回商品或改用其他方式收款；顾客可再次使用该券。"),
        Verdict.REVERSED: Phrase("已在生效前撤销，未核销任何券。顾客仍可使用该券。"),
    },
}


def cashier_text(
    verdict: Verdict,
    language: Language,
    *,
    winner: Winner | None = None,
    note: str | None = None,
    value: str | None = None,
    time_zone: str = "UTC",
) -> str:
    """What to tell the cashier who asked for a redemption (or an import).

    `winner` is the redemption in the way, its time told in `time_zone`; `note` a moment or the place of a bad
    character, as `Detail.note`; `value` an amount, as `gateway.money.money_text` writes it.
    """
    phrase = PHRASES[language][_public(verdict)]
    facts = {"note": note, "value": value}
    if winner is not None:
        time = moment_text(winner.at_ms, time_zone)
        facts |= {"store": winner.store, "terminal": winner.terminal, "time": time}
    return _filled(phrase, facts)


def reversal_text(verdict: Verdict, language: Language) -> str:
    """What to tell the cashier who asked for a reversal."""
    public = _public(verdict)
    return (REVERSAL_PHRASES[language].get(public) or PHRASES[language][public]).plain


def moment_text(at_ms: int, time_zone: str) -> str:
    """`2025-11-21 18:03 (UTC+8)`: wall time in an IANA zone, exact wherever it is read."""
    wall = datetime.fromtimestamp(at_ms // 1000, ZoneInfo(time_zone))
    return f"{wall:%Y-%m-%d %H:%M} (UTC{_offset_text(wall)})"


def _offset_text(wall: datetime) -> str:
    """`+8`, `-3:30`, or nothing for UTC itself."""
    minutes = (wall.utcoffset() or timedelta()) // timedelta(minutes=1)
    whole, part = divmod(abs(minutes), 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{whole}{f':{part:02d}' if part else ''}" if minutes else ""


def _public(verdict: Verdict) -> Verdict:
    public = PUBLIC[verdict]
    assert public is not None
    return public


def _filled(phrase: Phrase, facts: dict[str, str | None]) -> str:
    needed = _names_in(phrase.detailed)
    known = {name: facts[name] for name in needed if facts.get(name)}
    return phrase.detailed.format_map(known) if needed and len(known) == len(needed) else phrase.plain


@functools.cache  # the texts are few and constant, and HTTP answers carry two each
def _names_in(text: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)

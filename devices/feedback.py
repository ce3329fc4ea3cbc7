"""What the cashier reads: one line for each thing heard and each verdict, in English or Chinese. Pure.

Every verdict line has a mark (shape), a word, what happened and what to do next; colour only repeats the mark, so
that nothing rests on seeing it. "Heard" and "waiting" never look like a yes.
"""

import enum
from datetime import UTC, datetime, tzinfo

import msgspec

from devices.offline_words import FACT, NEW_FACT, SAY
from devices.outbox import Answer
from gateway.messages import Verdict, Winner

TAIL_CHARS = 6  # of the redemption_id: enough to name one among a day's scans, short enough to type
NOTE_CHARS_MAX = 200  # one line stays one line


class Mood(enum.Enum):
    """Mark and ANSI colour of a line."""

    GOOD = ("✓", "32;1")
    BAD = ("✗", "31;1")
    WAIT = ("…", "33")
    OFFLINE = ("◆", "36;1")  # a yes of the till's own, at its own risk
    PLAIN = ("·", "")


class Told(msgspec.Struct, frozen=True):
    """One thing for the cashier, before it has a language or a look: every screen shows the same from it."""

    mood: Mood
    key: str = ""  # of `say`; empty: the words are the answer's
    redemption_id: bytes = b""  # of the scan it is about
    source: str = ""  # of the scanner it is about
    words: str = ""  # somebody else's, or numbers: the same in every language
    answer: Answer | None = None


_REDEEM = {
    Verdict.ACCEPTED: (
        "ACCEPTED: the voucher is redeemed. Give the value.",
        "已核销：此券有效，请按券面内容兑现并结账。",
    ),
    Verdict.REVERSED: (
        "REVERSED: this redemption was undone. Scan the voucher again if the shopper still wants to use it.",
        "已撤销：此次核销已取消。如顾客仍要使用，请重新扫码。",
    ),
    Verdict.CONFLICT: (
        "CONFLICT: another redemption of this voucher came first. Give nothing; call your supervisor.",
        "冲突：此券已先在别处核销。请勿交付商品或给予优惠，并联系主管。",
    ),
    Verdict.ID_REUSED: (
        "FAULT: this till sent a number that was used before. Give nothing; scan again, and report it.",
        "故障：本机发送了用过的编号。请勿交付商品或给予优惠，请重新扫码并报修。",
    ),
    Verdict.TERMINAL_LOCKED: (
        "LOCKED: too many unknown codes from this till. Wait some minutes or call your supervisor.",
        "已锁定：本机无效码过多。请等待几分钟或联系主管。",
    ),
    Verdict.UNREADABLE: (
        "UNREADABLE: this is not a whole voucher code. Turn the phone brighter and scan again.",
        "无法识别：不是完整的券码。请调亮手机屏幕后重新扫码。",
    ),
    Verdict.UNKNOWN_CODE: (
        "UNKNOWN: no voucher has this code. Give nothing; ask the shopper for the original voucher.",
        "无效券码：查无此券。请勿交付商品或给予优惠，请顾客出示原始券。",
    ),
    Verdict.VOIDED: (
        "VOIDED: the campaign withdrew this voucher. Give nothing; the shopper may ask its issuer.",
        "已作废：活动方已收回此券。请勿交付商品或给予优惠，请顾客咨询发券方。",
    ),
    Verdict.ALREADY_REDEEMED: (
        "ALREADY USED: this voucher was redeemed before. Give nothing.",
        "已使用：此券此前已核销。请勿交付商品或给予优惠。",
    ),
    Verdict.TOO_MANY_REVERSALS: (
        "WORN OUT: this voucher was undone too often. Give nothing; the shopper may ask its issuer.",
        "无法使用：此券撤销次数过多。请勿交付商品或给予优惠，请顾客咨询发券方。",
    ),
    Verdict.NOT_ELIGIBLE: (
        "NOT HERE: this voucher is not valid in this store. Tell the shopper where it is.",
        "本店不可用：此券不适用于本店。请告知顾客适用门店。",
    ),
    Verdict.CLOSED: ("CLOSED: the campaign is over. Give nothing.", "活动已结束：请勿交付商品或给予优惠。"),
    Verdict.PAUSED: (
        "PAUSED: the campaign is paused. The voucher stays good; ask the shopper to come back later.",
        "活动暂停：此券仍然有效，请顾客稍后再来。",
    ),
    Verdict.NOT_YET_VALID: (
        "TOO EARLY: this voucher is not valid yet. The shopper can use it later.",
        "尚未生效：此券还未到使用时间，请顾客稍后再用。",
    ),
    Verdict.EXPIRED: (
        "EXPIRED: this voucher is past its last day. Give nothing.",
        "已过期：此券已过有效期，请勿交付商品或给予优惠。",
    ),
    Verdict.OUTSIDE_HOURS: (
        "NOT NOW: this voucher is not valid at this hour. The shopper can use it at another time.",
        "时段不符：此券当前时段不可用，请顾客在可用时段再来。",
    ),
    Verdict.UNRESOLVED: (
        "NO ANSWER YET: nothing is decided. Keep the voucher waiting; this till goes on asking.",
        "尚无结果：核销结果未定。请顾客稍候，本机会继续查询。",
    ),
}
_REVERSAL = {
    Verdict.ACCEPTED: (
        "UNDONE: the redemption is taken back. The shopper may use the voucher again.",
        "已撤销：该笔核销已取消，顾客可再次使用此券。",
    ),
    Verdict.REVERSED: (
        "UNDONE: this redemption does not stand. The shopper may use the voucher again.",
        "已撤销：该笔核销不成立，顾客可再次使用此券。",
    ),
    Verdict.NOT_FOUND: (
        "NOTHING TO UNDO: the gateway knows no such redemption. Call your supervisor.",
        "无法撤销：系统中没有这笔核销。请联系主管。",
    ),
    Verdict.NOT_YOURS: (
        "NOT UNDONE: it was made at another till. A supervisor can undo it.",
        "未撤销：该笔核销由其他收银台完成，请由主管撤销。",
    ),
    Verdict.WINDOW_OVER: (
        "NOT UNDONE: it is too late to undo this redemption. Call your supervisor.",
        "未撤销：已超过可撤销时间。请联系主管。",
    ),
    Verdict.TERMINAL_LOCKED: (
        "NOT UNDONE YET: this till is locked. It goes on asking; call your supervisor.",
        "尚未撤销：本机已锁定，会继续尝试。请联系主管。",
    ),
    Verdict.UNRESOLVED: (
        "NOT UNDONE YET: no answer. This till goes on asking.",
        "尚未撤销：暂无结果，本机会继续查询。",
    ),
}
_SAY = {
    "heard": ("heard, asking the gateway", "已扫码，正在查询"),
    "heard_offline": (
        "heard and kept; no connection, this till asks as soon as it can",
        "已扫码并保存；暂无连接，恢复后立即查询",
    ),
    "held": ("heard; its earlier redemption is being undone first", "已扫码；先前的核销正在撤销，请稍候"),
    "again": ("the same scan: still waiting for its answer", "同一张券：仍在等待结果"),
    "same_scan": ("the same scan, read twice: accepted once", "同一次扫码读到两遍：只核销了一次"),
    "undoing": ("undoing, asking the gateway", "正在撤销"),
    "journal_full": (
        "NOT TAKEN: this till's disk or journal is full. Nothing was sent; use another till and call for help.",
        "未受理：本机存储已满，未发送任何请求。请换用其他收银台并联系技术支持。",
    ),
    "too_fast": ("NOT TAKEN: too many scans at once. Scan again.", "未受理：扫码过快，请重新扫码。"),
    "too_long": ("NOT READ: too long for a code. Scan again.", "未读取：内容过长，请重新扫码。"),
    "no_prefix": ("NOT READ: the scan began wrongly. Scan again.", "未读取：扫码内容开头不符，请重新扫码。"),
    "cut_off": (
        "NOT READ: the scan was cut off. Scan again; if it stays so, check the scanner's suffix setting.",
        "未读取：扫码中断，请重新扫码；若反复出现，请检查扫码器的结束符设置。",
    ),
    "empty": ("NOT READ: an empty scan. Scan again.", "未读取：内容为空，请重新扫码。"),
    "checksum": (
        "NOT READ: the scan arrived damaged. Scan again; if it stays so, check the scanner's cable.",
        "未读取：数据传输出错，请重新扫码；若反复出现，请检查扫码器连线。",
    ),
    "stray": (
        "NOT READ: the scanner sent something this till cannot read. Scan again; if it stays so, check its settings.",
        "未读取：收到无法识别的数据，请重新扫码；若反复出现，请检查扫码器设置。",
    ),
    "typed": (
        "NOT READ: typed by hand on a scanner's keyboard. Scan the voucher, or type `code` and the code at the till.",
        "未读取：扫码器键盘上的手动输入。请扫描券码，或在本机输入 `code` 加券码。",
    ),
    "alt_codes": (
        "NOT READ: the scanner is in ALT mode, which loses digits. Set `ALT mode off`, US keyboard; scan again.",
        "未读取：扫码器处于 ALT 模式，会丢失数字。请将其设为关闭 ALT 模式、美式键盘，然后重新扫码。",
    ),
    "unknown_key": (
        "NOT READ: a key that makes no character. Set the scanner's country to the layout configured here; scan again.",
        "未读取：收到无对应字符的按键。请将扫码器的键盘国家设为与本机配置一致，然后重新扫码。",
    ),
    "overrun": (
        "NOT READ: this till was too busy and lost a part of the scan. Scan again.",
        "未读取：本机繁忙，丢失了部分内容。请重新扫码。",
    ),
    "several": (
        "NOT READ: more than one code before the camera. Show one code only, and scan again.",
        "未读取：镜头前有多个码，请只出示一个码后重新扫码。",
    ),
    "no_code": (
        "NOT READ: no code can be read in the picture. Show the whole code, bright and flat, and scan again.",
        "未读取：图片中没有可读的码，请将完整的码调亮放平后重新扫码。",
    ),
    "not_a_picture": (
        "NOT READ: the file is damaged or not a picture. Scan again; if it stays so, check what puts files there.",
        "未读取：文件损坏或不是图片，请重新扫码；若反复出现，请检查图片来源。",
    ),
    "scanner_ready": ("scanner ready", "扫码器就绪"),
    "scanner_lost": ("scanner not connected", "扫码器未连接"),
    "online": ("connected to the gateway", "已连接网关"),
    "offline": ("no connection to the gateway: scans are kept and asked later", "未连接网关：扫码会保存，恢复后查询"),
    "notice": ("notice", "通知"),
    "page": ("the cashier's page is ready", "收银页面已就绪"),
    "no_page": (
        "NO PAGE: the cashier's page cannot be served; scanners go on, and this till tries again.",
        "无法打开收银页面：扫码不受影响，本机会继续尝试。",
    ),
    "pair": (
        "to pair a phone or tablet within 10 minutes, open the page on it and type",
        "请在10分钟内用手机或平板打开收银页面，并输入配对码",
    ),
    "no_pair": (
        "nothing to pair: the page is for this machine only, or there is none (`listen` of [page])",
        "无需配对：页面仅限本机使用或未启用（见 [page] 的 `listen`）",
    ),
    "no_receipt": (
        "NO SLIP: the printer does not answer. The verdict stands without it; check paper, power and cable.",
        "未打印小票：打印机无响应。核销结果不受影响，请检查纸张、电源和连线。",
    ),
    "receipts": ("the printer works again", "打印机已恢复"),
    "stopped": ("stopped", "已停止"),
    "open": ("waiting for an answer", "等待结果"),
    "nothing_open": ("nothing is waiting", "没有等待中的请求"),
    "no_such": ("no scan like that, or nothing to undo there", "没有这条记录，或没有可撤销的内容"),
    "ambiguous": ("more than one scan ends so: type more of it", "有多笔记录符合，请输入更多位"),
    "not_open": ("that one has its answer: use `reverse`", "该笔已有结果：请用 `reverse`"),
    "ref_cashier": ("every scan from now on names the cashier", "此后每次扫码都记录收银员"),
    "no_ref_cashier": ("no cashier is named any more", "已不再记录收银员"),
    "ref_receipt": ("every scan from now on names the receipt", "此后每次扫码都记录小票号"),
    "no_ref_receipt": ("no receipt is named any more", "已不再记录小票号"),
    "commands": (
        "commands: reverse or give-up + last or <number> | code <text> | cashier <id> | receipt <id> | waiting | pair",
        "命令：reverse 或 give-up+ last 或 <编号> | code <券码> | cashier <工号> | receipt <小票号> | waiting | pair",
    ),
}
_WINNER = ("Used at {store}, till {terminal}, {at}.", "使用门店 {store}，收银台 {terminal}，时间 {at}。")
_OFFER = ("Worth: {offer}.", "券面内容：{offer}。")
_WORDS_ARE_THE_TEXT = ("notice", "open", "pair", "ref_cashier", "ref_receipt")  # their words stand without brackets
_NEW_REFUSAL = (
    "REFUSED: reason {number}, new to this till. Give nothing; call your supervisor.",
    "已拒绝：原因代码 {number}，本机未收录。请勿交付商品或给予优惠，并联系主管。",
)
_NEW_REVERSAL = ("NOT UNDONE: reason {number}. Call your supervisor.", "未撤销：原因代码 {number}。请联系主管。")
GOOD_VERDICTS = {False: (Verdict.ACCEPTED,), True: (Verdict.ACCEPTED, Verdict.REVERSED)}


def say(language: str, key: str) -> str:
    return (_SAY.get(key) or SAY[key])[_column(language)]


def tail_of(redemption_id: bytes) -> str:
    return "#" + redemption_id.hex()[-TAIL_CHARS:]


def told_text(language: str, told: Told) -> str:
    """One line, without its mark."""
    before = tail_of(told.redemption_id) if told.redemption_id else f"[{told.source}]" if told.source else ""
    if told.answer:
        return f"{before} {verdict_text(language, told.answer)}"
    words = printable(told.words)
    after = f"({words})" if words and told.key not in _WORDS_ARE_THE_TEXT else words
    return " ".join(filter(None, (before, say(language, told.key), after)))


def verdict_text(language: str, answer: Answer, zone: tzinfo | None = None) -> str:
    """The sentences for one answer. `zone` None: the machine's own time zone, for the time of an earlier redemption."""
    parts = (
        verdict_words(language, answer.verdict, is_reversal=answer.is_reversal, is_fact=answer.is_fact),
        offer_text(language, answer.offer),
        winner_text(language, answer.winner, zone),
        printable(answer.note or ""),
    )
    return " ".join(filter(None, parts))


def verdict_words(language: str, verdict: int, *, is_reversal: bool, is_fact: bool = False) -> str:
    """What happened and what to do: `WORD: sentences`."""
    column = _column(language)
    words, new = (_REVERSAL, _NEW_REVERSAL) if is_reversal else (FACT, NEW_FACT) if is_fact else (_REDEEM, _NEW_REFUSAL)
    known = words.get(verdict)  # type: ignore[call-overload]
    return known[column] if known else new[column].format(number=verdict)


def head_and_rest(text: str) -> tuple[str, str]:
    """`WORD: sentences` in its two parts; a text without a word of its own is all sentences."""
    for colon in (": ", "："):
        head, found, rest = text.partition(colon)
        if found:
            return head, rest[:1].upper() + rest[1:]
    return "", text[:1].upper() + text[1:]


def mood_of(answer: Answer) -> Mood:
    if answer.verdict in GOOD_VERDICTS[answer.is_reversal]:
        return Mood.GOOD
    return Mood.WAIT if answer.verdict == Verdict.UNRESOLVED else Mood.BAD


def line(mood: Mood, text: str, *, at_ms: int, colour: bool, zone: tzinfo | None = None) -> str:
    """`12:03:07 ✓ text`, without a line end."""
    mark, ansi = mood.value
    body = f"{mark} {text}"
    if colour and ansi:
        body = f"\x1b[{ansi}m{body}\x1b[0m"
    return f"{_local(at_ms, zone):%H:%M:%S} {body}"


def printable(text: str) -> str:
    """A peer's words made safe for a terminal: one line, no control characters, bounded."""
    return "".join(c if c.isprintable() else " " for c in text[:NOTE_CHARS_MAX])


def winner_text(language: str, winner: Winner | None, zone: tzinfo | None = None) -> str:
    """Where and when the voucher was used before; empty when that is not told."""
    if winner is None:
        return ""
    at = f"{_local(winner.at_ms, zone):%Y-%m-%d %H:%M}"
    place = {"store": printable(winner.store), "terminal": printable(winner.terminal)}
    return _WINNER[_column(language)].format(**place, at=at)


def offer_text(language: str, offer: str | None) -> str:
    """What the voucher is worth; empty when that is not told."""
    return _OFFER[_column(language)].format(offer=printable(offer)) if offer else ""


def _local(at_ms: int, zone: tzinfo | None) -> datetime:
    bounded_s = min(max(at_ms // 1000, 0), 253_370_000_000)  # a peer's number must not end the till (year 9998)
    return datetime.fromtimestamp(bounded_s, UTC).astimezone(zone)


def _column(language: str) -> int:
    return 1 if language == "zh" else 0

"""Every HTTP operation of the gateway as one row: what it takes, what it gives, who may ask. The API's document and the
test that no route is undocumented are made from this table. Pure.
"""

import msgspec

from gateway.exposure import Exposure
from gateway.http_access import KeyRow, NewToken, TokenMade, TokenRow
from gateway.http_admin import (
    AllianceBody,
    Enrolled,
    Enrolment,
    MerchantBody,
    NewTerminal,
    StoreBody,
    TerminalOffer,
    TerminalRow,
)
from gateway.http_campaigns import (
    CODES_PER_CALL_MAX,
    CampaignBody,
    ImportOutcome,
    Issued,
    NewCampaign,
    NewImport,
    NewIssue,
)
from gateway.http_health import Alive, Readiness
from gateway.http_imports import ImportedLines
from gateway.http_log import BATCHES_DEFAULT, BATCHES_MAX
from gateway.http_vouchers import Voided, VoidRequest, VoucherBody, VoucherNamed
from gateway.import_lines import FORMS
from gateway.messages import Answer, RedemptionRequest, ReversalRequest
from gateway.roles import Action as A

NDJSON, TEXT = "application/x-ndjson", "text/plain"
SLUG = "slug"


class Query(msgspec.Struct, frozen=True):
    """A whole number in the query; or, where `high` is 0, a word that is there or not."""

    name: str
    text: str
    low: int = 0
    high: int = 0
    default: int = 0
    required: bool = False


class Operation(msgspec.Struct, frozen=True):
    """`actions`: whoever's role allows one of these; none: anybody. `gives` None: `media` is no JSON.

    `lines`: the body is a text of lines, in one of these media types.
    """

    method: str
    path: str
    tag: str
    summary: str
    actions: tuple[A, ...] = ()
    takes: type | None = None
    gives: object = None
    media: str = "application/json"
    queries: tuple[Query, ...] = ()
    text: str = ""
    lines: tuple[str, ...] = ()
    changes: bool = False  # may be refused with 409 for what is so already


_REDEEM_TEXT = (
    "Every verdict is 200, refusals too. 503 with `retry` says that nothing is known: send the same body with the same "
    "`redemption_id` again, never a new id. The same id and body are answered the same for ever."
)
_REVERSE_TEXT = "Undoes one redemption; one that has not arrived yet is refused for ever when `original` is given."
_CODES_TEXT = "Lines of `serial,code` of signed serials that were issued. Codes are money: nothing here may be cached."
_IMPORT_TEXT = "At most 1000 codes a call. A code that is not taken is told by its place in the request, never itself."
_IMPORT_LINES_TEXT = (
    "Any number of codes, a line each, up to 256 MiB: NDJSON (a string a line, or an object with `code`), CSV whose "
    "first line names the columns, or plain text. The body is read as it arrives. Lines that are not taken are told by "
    "their number, never themselves. After a failure send the same body with the same `request_id` again: what was "
    "imported is counted as repeated, and so is a code that comes twice."
)
_LOG_TEXT = (
    "One batch a line, records unpacked. Fewer lines than `limit` are the end; a damaged batch is the last line."
)

OPERATIONS = (
    Operation(
        "POST",
        "/v1/redemptions",
        "tills",
        "Redeem a voucher",
        (A.REDEEM,),
        RedemptionRequest,
        Answer,
        text=_REDEEM_TEXT,
    ),
    Operation(
        "POST",
        "/v1/redemptions/preview",
        "tills",
        "What a redemption would be told now; changes nothing",
        (A.PREVIEW,),
        RedemptionRequest,
        Answer,
    ),
    Operation("GET", "/v1/redemptions/{id}", "tills", "What became of it", (A.REDEMPTION_READ,), None, Answer),
    Operation(
        "POST",
        "/v1/redemptions/{id}/reversal",
        "tills",
        "Undo a redemption",
        (A.REVERSE, A.REVERSE_ANY),
        ReversalRequest,
        Answer,
        text=_REVERSE_TEXT,
    ),
    Operation("GET", "/v1/campaigns", "campaigns", "List campaigns", (A.CAMPAIGN_READ,), None, list[CampaignBody]),
    Operation(
        "POST",
        "/v1/campaigns",
        "campaigns",
        "Create a campaign",
        (A.CAMPAIGN_WRITE,),
        NewCampaign,
        CampaignBody,
        changes=True,
    ),
    Operation("GET", "/v1/campaigns/{slug}", "campaigns", "Show a campaign", (A.CAMPAIGN_READ,), None, CampaignBody),
    *(
        Operation(
            "POST",
            f"/v1/campaigns/{{slug}}/{verb}",
            "campaigns",
            summary,
            (A.CAMPAIGN_WRITE,),
            None,
            CampaignBody,
            changes=True,
        )
        for verb, summary in (
            ("pause", "Refuse its vouchers until it is resumed"),
            ("resume", "Take its vouchers again"),
            ("close", "End it for good"),
            ("purge", "Free what Valkey keeps of it, once its disputes are over"),
        )
    ),
    Operation(
        "POST",
        "/v1/campaigns/{slug}/issues",
        "vouchers",
        "Issue signed vouchers",
        (A.VOUCHER_ISSUE,),
        NewIssue,
        Issued,
        changes=True,
    ),
    Operation(
        "GET",
        "/v1/campaigns/{slug}/codes",
        "vouchers",
        "Fetch the codes of issued vouchers",
        (A.VOUCHER_ISSUE,),
        media=TEXT,
        queries=(
            Query("first", "the first serial", 0, 2**40 - 1, 1),
            Query("count", "how many", 1, CODES_PER_CALL_MAX, 1),
        ),
        text=_CODES_TEXT,
    ),
    Operation(
        "POST",
        "/v1/campaigns/{slug}/imports",
        "vouchers",
        "Import codes of another maker",
        (A.VOUCHER_ISSUE,),
        NewImport,
        ImportOutcome,
        text=_IMPORT_TEXT,
        changes=True,
    ),
    Operation(
        "POST",
        "/v1/campaigns/{slug}/imports/lines",
        "vouchers",
        "Import a file of codes of another maker",
        (A.VOUCHER_ISSUE,),
        gives=ImportedLines,
        queries=(
            Query("request_id", "1 to 64 characters, chosen by you for this body", required=True),
            Query("column", "CSV: the column of the codes; `code` if it is not given"),
        ),
        text=_IMPORT_LINES_TEXT,
        lines=FORMS,
        changes=True,
    ),
    Operation(
        "POST", "/v1/vouchers/show", "vouchers", "The life of a voucher", (A.VOUCHER_READ,), VoucherNamed, VoucherBody
    ),
    Operation(
        "POST",
        "/v1/vouchers/void",
        "vouchers",
        "End an unredeemed voucher",
        (A.VOUCHER_VOID,),
        VoidRequest,
        Voided,
        changes=True,
    ),
    Operation("GET", "/v1/merchants", "parties", "List merchants", (A.STORE_READ,), None, list[MerchantBody]),
    Operation(
        "POST", "/v1/merchants", "parties", "Add a merchant", (A.STORE_WRITE,), MerchantBody, MerchantBody, changes=True
    ),
    Operation("GET", "/v1/alliances", "parties", "List alliances", (A.STORE_READ,), None, list[AllianceBody]),
    Operation(
        "POST",
        "/v1/alliances",
        "parties",
        "Define an alliance, or replace its members",
        (A.STORE_WRITE,),
        AllianceBody,
        AllianceBody,
        changes=True,
    ),
    Operation("GET", "/v1/stores", "parties", "List stores", (A.STORE_READ,), None, list[StoreBody]),
    Operation("POST", "/v1/stores", "parties", "Open a store", (A.STORE_WRITE,), StoreBody, StoreBody, changes=True),
    Operation("GET", "/v1/terminals", "terminals", "List terminals", (A.TERMINAL_READ,), None, list[TerminalRow]),
    Operation(
        "POST",
        "/v1/terminals",
        "terminals",
        "Offer a terminal: a number, and a token that one device may enrol with",
        (A.TERMINAL_WRITE,),
        NewTerminal,
        TerminalOffer,
        changes=True,
    ),
    Operation(
        "POST",
        "/v1/terminals/enrol",
        "terminals",
        "Enrol this device; the token in the body is the permission",
        takes=Enrolment,
        gives=Enrolled,
        changes=True,
    ),
    *(
        Operation(
            "POST",
            f"/v1/terminals/{{number}}/{verb}",
            "terminals",
            summary,
            (A.TERMINAL_WRITE,),
            None,
            TerminalRow,
            changes=True,
        )
        for verb, summary in (
            ("revoke", "Let it in nowhere any more, within a second"),
            ("unlock", "End a lock for wrong codes"),
        )
    ),
    Operation("GET", "/v1/tokens", "access", "List bearer tokens", (A.TOKEN_READ,), None, list[TokenRow]),
    Operation(
        "POST", "/v1/tokens", "access", "Make a bearer token", (A.TOKEN_WRITE,), NewToken, TokenMade, changes=True
    ),
    Operation(
        "POST",
        "/v1/tokens/{token_id}/revoke",
        "access",
        "Revoke a bearer token",
        (A.TOKEN_WRITE,),
        None,
        TokenRow,
        changes=True,
    ),
    Operation("GET", "/v1/keys", "access", "List the keys that sign codes, by id", (A.KEY_READ,), None, list[KeyRow]),
    Operation(
        "POST",
        "/v1/keys",
        "access",
        "Add a key; it becomes the active one",
        (A.KEY_WRITE,),
        None,
        KeyRow,
        changes=True,
    ),
    Operation(
        "POST",
        "/v1/keys/{key_id}/retire",
        "access",
        "Retire a key: codes it signed are refused",
        (A.KEY_WRITE,),
        None,
        KeyRow,
        changes=True,
    ),
    Operation(
        "GET",
        "/v1/log/{partition}",
        "log",
        "Read the event log",
        (A.LOG_READ,),
        media=NDJSON,
        queries=(
            Query("from", "the first sequence number", 1, 2**40 - 1, 1),
            Query("limit", "how many batches at most", 1, BATCHES_MAX, BATCHES_DEFAULT),
        ),
        text=_LOG_TEXT,
    ),
    Operation(
        "GET",
        "/v1/exposure",
        "vouchers",
        "What may be lost by accepting offline, and which terminals are out of contact",
        (A.VOUCHER_READ,),
        gives=Exposure,
    ),
    Operation("GET", "/livez", "health", "Whether the gateway's loop answers", gives=Alive),
    Operation(
        "GET",
        "/readyz",
        "health",
        "Whether scans can be answered now (else 503)",
        gives=Readiness,
        queries=(Query("verbose", "also tell why not"),),
    ),
)

"""What every run starts from: one merchant, two stores, tills, two campaigns with issued codes; always the same."""

from functools import cache

from eventstore.events import (
    CampaignCreated,
    Control,
    DeploymentInitialised,
    KeyAdded,
    MerchantAdded,
    Offer,
    StoreOpened,
    TerminalEnrolled,
    TerminalOffered,
    VouchersIssued,
    encode_control,
)
from eventstore.log import CONTROL, ZERO_TIP, Batch
from gateway.codes import CodeKeys, KeyRing, typed_code

BASE_MS = 1_760_000_000_000
DAY_MS = 86_400_000
KEYS = CodeKeys(keys={1: b"k" * 32}, active=1, pepper=b"p" * 32)
TERMINALS = 6
CAMPAIGNS = {1: "cake", 2: "tea"}
ISSUED = 1024  # signed serials per campaign that exist from the start
TYPED_CODES = tuple(typed_code(7_000_000_000 + 37 * n) for n in range(8))  # imported during a run, or never
REVERSAL_WINDOW_MS = 900_000
DISPUTE_MS = 90 * DAY_MS
BRIEF_MS = 1_000  # instead of both, where a campaign is purged within a run


def _offer(title: str, is_brief: bool) -> Offer:
    return Offer(
        title=title,
        kind="prepaid",
        value_minor=1000,
        currency="CNY",
        starts_ms=BASE_MS - DAY_MS,
        ends_ms=BASE_MS + DAY_MS,
        stores=("s1", "s2"),
        reversal_window_ms=BRIEF_MS if is_brief else REVERSAL_WINDOW_MS,
        dispute_ms=BRIEF_MS if is_brief else DISPUTE_MS,
    )


@cache
def control_batches(partitions: int, brief: int) -> list[Batch]:
    """The control partition at the start of a run; `brief`: the campaign that may be purged a second after its end."""
    tills = []
    for number in range(1, TERMINALS + 1):
        token = number.to_bytes(16, "big")
        store = f"s{1 + number % 2}"
        label = f"till-{number}"
        tills.append(
            TerminalOffered(terminal=number, store=store, label=label, token_hash=token, expires_ms=BASE_MS + DAY_MS)
        )
        tills.append(TerminalEnrolled(terminal=number, public_key=token * 2))
    campaigns = [
        event
        for number, slug in CAMPAIGNS.items()
        for event in (
            CampaignCreated(campaign=number, slug=slug, offer=_offer(slug, number == brief)),
            VouchersIssued(campaign=number, kind="signed", first_serial=1, count=ISSUED, request_id="first"),
        )
    ]
    events = (
        DeploymentInitialised(deployment_id="sim", partitions=partitions),
        KeyAdded(key_id=1),
        MerchantAdded(merchant="m1", title="M"),
        StoreOpened(store="s1", merchant="m1", title="S1"),
        StoreOpened(store="s2", merchant="m1", title="S2"),
        *tills,
        *campaigns,
    )
    payload = encode_control(Control("sim", events), at_ms=BASE_MS - DAY_MS)
    return [Batch(CONTROL, 1, ZERO_TIP, b"\x01" * 16, payload, b"")]


@cache
def signed_code(campaign: int, serial: int) -> str:
    """The code of a voucher, issued or not."""
    return next(KeyRing(KEYS).mint(1, campaign, serial, 1))


@cache
def code_hash(code: str) -> bytes:
    """What the registry calls a typed code."""
    parsed = KeyRing(KEYS).parse(code)
    keyed_hash: bytes = parsed.keyed_hash  # type: ignore[union-attr]
    return keyed_hash

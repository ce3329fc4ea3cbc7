"""Whatever the rules let be written can be folded, and leaves a directory that answers."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eventstore import events as e
from eventstore.events import Control, ControlEvent, Offer
from gateway.campaign import CODE_KINDS
from gateway.control_rules import check
from gateway.directory import Directory
from gateway.roles import ROLES

NOW_MS = 1_762_128_000_000
DAY_MS = 86_400_000
HASH, SECOND_HASH = b"h" * 32, b"i" * 32

ids = st.sampled_from(("a", "b", "A"))
numbers = st.sampled_from((0, 1, 2, 3, 2**32, 2**40))
hashes = st.sampled_from((HASH, SECOND_HASH, b""))
offers = st.builds(
    Offer,
    title=st.just("T"),
    kind=st.just("prepaid"),
    value_minor=st.just(1),
    currency=st.just("CNY"),
    starts_ms=st.just(NOW_MS),
    ends_ms=st.just(NOW_MS + DAY_MS),
    stores=st.lists(ids, max_size=2).map(tuple),
    alliance=st.one_of(st.none(), ids),
    dispute_ms=st.just(DAY_MS),
)
steps = (e.CampaignPaused, e.CampaignResumed, e.CampaignClosed, e.CampaignPurged)
events: st.SearchStrategy[Any] = st.one_of(
    st.builds(e.DeploymentInitialised, deployment_id=ids, partitions=numbers),
    st.builds(e.MerchantAdded, merchant=ids, title=st.just("T")),
    st.builds(e.AllianceDefined, alliance=ids, merchants=st.lists(ids, max_size=2).map(tuple)),
    st.builds(e.StoreOpened, store=ids, merchant=ids, title=st.just("T")),
    st.builds(e.CampaignCreated, campaign=numbers, slug=ids, offer=offers),
    *(st.builds(step, campaign=numbers) for step in steps),
    st.builds(
        e.VouchersIssued,
        campaign=numbers,
        kind=st.sampled_from((*CODE_KINDS, "drawn")),
        first_serial=numbers,
        count=numbers,
        request_id=ids,
    ),
    st.builds(
        e.TerminalOffered,
        terminal=numbers,
        store=ids,
        label=ids,
        token_hash=hashes,
        expires_ms=st.just(NOW_MS + 2 * DAY_MS),
    ),
    st.builds(e.TerminalEnrolled, terminal=numbers, public_key=hashes),
    st.builds(e.TerminalRevoked, terminal=numbers),
    st.builds(e.TerminalLocked, terminal=numbers, until_ms=st.just(NOW_MS + DAY_MS)),
    st.builds(e.TerminalUnlocked, terminal=numbers),
    st.builds(
        e.TokenCreated,
        token_id=ids,
        token_hash=hashes,
        role=st.sampled_from((*ROLES, "king")),
        scope=st.sampled_from(("", "a", "b", "1", "2")),
        label=ids,
    ),
    st.builds(e.TokenRevoked, token_id=ids),
    st.builds(e.KeyAdded, key_id=numbers),
    st.builds(e.KeyRetired, key_id=numbers),
)


START: tuple[ControlEvent, ...] = (
    e.MerchantAdded(merchant="a", title="A"),
    e.StoreOpened(store="a", merchant="a", title="A"),
    e.AllianceDefined(alliance="a", merchants=("a",)),
    e.KeyAdded(key_id=1),
)


@given(st.lists(st.tuples(events, st.sampled_from((0, DAY_MS))), max_size=30))
def test_whatever_is_accepted_can_be_folded_and_asked(history: list[tuple[ControlEvent, int]]) -> None:
    directory, now_ms = Directory(), NOW_MS
    directory.apply(Control("test", START), 1, now_ms)
    for event, later_ms in history:
        now_ms += later_ms
        if check(directory, (event,), now_ms=now_ms) is None:
            directory.apply(Control("test", (event,)), directory.control_seq + 1, now_ms)
    for store in directory.stores:
        assert directory.outlet(store).merchant in directory.merchants
    for campaign in directory.campaigns.values():
        assert directory.campaign(campaign.slug) is campaign is directory.campaign(str(campaign.number))
        assert directory.merchants_of(campaign) <= set(directory.merchants)
        spans = [campaign.issued(kind) for kind in CODE_KINDS]
        assert max((span.ends[-1] for span in spans if span.ends), default=1) <= campaign.next_serial
    for token_hash in directory.tokens:
        directory.principal_of_token(token_hash)

"""What happens in the demo, decided beforehand from a seed: who holds which voucher, and who scans what where. Pure.

All of it is one list of steps an act, in one order that every till keeps for its own part. So two tills that must scan
the same code at once meet pair after pair in the same order, and can never wait for each other in a circle.
"""

import enum
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

import msgspec

PHONES = 400
ALLIANCE = "river-street"
MERCHANTS = (  # id, title, stores
    ("luming", "鹿鸣百货 Luming Department Stores", ("luming-bridge", "luming-ferry", "luming-tower")),
    ("maixiang", "麦巷烘焙 Wheat Lane Bakery", ("wheat-lane", "wheat-market", "wheat-station")),
    ("qingya", "青崖茶铺 Green Cliff Tea", ("cliff-garden", "cliff-school")),
    ("shuihe", "水禾面馆 Rice Water Noodles", ("noodle-corner", "noodle-quay")),
)
STORES = tuple(store for _, _, stores in MERCHANTS for store in stores)
GIFT_STORES = ("luming-bridge", "luming-tower", "cliff-garden", "cliff-school", "noodle-quay")
BOWL, BREAD, GIFT, ENDED, PRINTED = "autumn-bowl", "bread-for-two", "tea-gift", "summer-ice", "radio-thanks"
PHONE_CAMPAIGNS = (BOWL, BREAD, GIFT)  # one voucher of each on every phone
ENDED_COUNT, PRINTED_COUNT = 10, 20
LOSSY_TILL = 0  # the till whose line can be made to lose an answer

PLAIN_PER_ACT = 300
RACES_PER_ACT = 8
COPIES_PER_ACT = 10  # the picture of a used voucher, shown again in another store
VOIDED_COUNT = FORGED_COUNT = WRONG_STORE_COUNT = EXPIRED_COUNT = 2
REVERSED_COUNT, TYPED_COUNT = 3, 3
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"  # of a signed code
T = TypeVar("T")


class Deed(enum.Enum):
    SCAN = "scan"
    SCAN_AT_BOTH = "scan at two stores at once"
    SCAN_FORGED = "scan with one character of the signature changed"
    SCAN_ANSWER_LOST = "scan, and the line breaks after the gateway has committed, before the answer arrives"
    SCAN_TILL_KILLED = "scan, and the till is killed before the answer arrives"
    TAKE_BACK = "scan, then the cashier takes it back"
    TYPE = "type the digits at the till"
    TYPE_WRONGLY = "type the digits with one of them wrong"


class Voucher(msgspec.Struct, frozen=True, order=True):
    """Voucher `number` (from 0) of a campaign, which is also the number of the phone that holds it."""

    campaign: str
    number: int


class Step(msgspec.Struct, frozen=True):
    """One thing done at a till, or at two. `expected`: all that is told of it, by verdict name, in any order."""

    tills: tuple[int, ...]
    deed: Deed
    voucher: Voucher
    case: str  # what the step is an example of; empty for a plain redemption
    expected: tuple[str, ...] = ("accepted",)


class Act(msgspec.Struct, frozen=True):
    """Steps that no later act's step overtakes. After `kill_after` answers, `kill` (gateway, valkey) is killed."""

    name: str
    steps: tuple[Step, ...]
    kill: str = ""
    kill_after: int = 0

    @property
    def scans(self) -> int:
        return sum(len(step.tills) for step in self.steps)


class Plan(msgspec.Struct, frozen=True):
    acts: tuple[Act, ...]
    voided: tuple[Voucher, ...]  # by the campaign's owner, before the first act
    cases: tuple[str, ...]  # every case there is, in the order to tell them


def plan_of(seed: int) -> Plan:
    """The same seed gives the same plan."""
    deck = _Deck(seed)
    calm, voided = _special_steps(deck)
    opening = _plain_steps(deck, "opening", ()) + calm
    again = [step for step in calm if step.deed is Deed.TAKE_BACK][:-1]
    noon = _plain_steps(deck, "noon", opening) + [_elsewhere(deck, s, "used after reversal", "accepted") for s in again]
    evening = _plain_steps(deck, "evening", opening + noon)
    closing = _copies(deck, "closing", opening + noon + evening)
    return Plan(
        acts=(
            _act(deck, "opening", opening),
            _act(deck, "noon", noon, kill="gateway"),
            _act(deck, "evening", evening, kill="valkey"),
            _act(deck, "closing", closing),
        ),
        voided=tuple(voided),
        cases=tuple(dict.fromkeys(step.case for step in calm + opening + noon if step.case)),
    )


class _Deck:
    """Every phone's vouchers in the seed's order; each is dealt once."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        every = [Voucher(campaign, phone) for campaign in PHONE_CAMPAIGNS for phone in range(PHONES)]
        self._left = self.shuffled("deck", every)

    def shuffled(self, label: str, things: Sequence[T]) -> list[T]:
        """In an order that the seed and the label give."""
        keys = [blake2b(f"{self._seed} {label} {n}".encode()).digest() for n in range(len(things))]
        return [things[n] for n in sorted(range(len(things)), key=keys.__getitem__)]

    def number(self, label: str, first: int, end: int) -> int:
        return self.shuffled(label, range(first, end))[0]

    def take(self, count: int, campaign: str = "") -> list[Voucher]:
        taken = [voucher for voucher in self._left if campaign in ("", voucher.campaign)][:count]
        assert len(taken) == count, "the deck is too small for the plan"
        self._left = [voucher for voucher in self._left if voucher not in taken]
        return taken

    def tills(self, label: str, voucher: Voucher, count: int = 1, *, but: Sequence[int] = ()) -> tuple[int, ...]:
        """Different tills at which the voucher is valid."""
        allowed = [till for till in eligible_tills(voucher.campaign) if till not in but]
        return tuple(self.shuffled(f"{label} {voucher}", allowed)[:count])


def eligible_tills(campaign: str) -> list[int]:
    """Till n stands in store n."""
    return [till for till, store in enumerate(STORES) if campaign != GIFT or store in GIFT_STORES]


def _plain_steps(deck: _Deck, act: str, earlier: Sequence[Step]) -> list[Step]:
    steps = [Step(deck.tills(act, v), Deed.SCAN, v, "") for v in deck.take(PLAIN_PER_ACT)]
    for voucher in deck.take(RACES_PER_ACT):
        told = ("accepted", "already_redeemed")
        steps.append(Step(deck.tills(act, voucher, 2), Deed.SCAN_AT_BOTH, voucher, "two stores at once", told))
    return steps + _copies(deck, act, earlier)


def _copies(deck: _Deck, act: str, earlier: Sequence[Step]) -> list[Step]:
    """The pictures of vouchers used in an earlier act, in other stores."""
    used = [step for step in earlier if step.deed is Deed.SCAN and step.expected == ("accepted",) and not step.case]
    chosen = deck.shuffled(f"copies {act}", used)[:COPIES_PER_ACT]
    return [_elsewhere(deck, step, "used before, in another store", "already_redeemed") for step in chosen]


def _elsewhere(deck: _Deck, step: Step, case: str, told: str) -> Step:
    tills = deck.tills("elsewhere", step.voucher, but=step.tills)
    return Step(tills, Deed.SCAN, step.voucher, case, (told,))


def _special_steps(deck: _Deck) -> tuple[list[Step], list[Voucher]]:
    """The cases that a till sees on a bad day, and which of the vouchers in them are voided beforehand."""

    def at_one(deed: Deed, vouchers: Sequence[Voucher], case: str, *told: str) -> list[Step]:
        return [Step(deck.tills(case, voucher), deed, voucher, case, told) for voucher in vouchers]

    lost, killed = deck.take(2, BOWL)
    voided = deck.take(VOIDED_COUNT, BREAD)
    wrong = [store for store in range(len(STORES)) if store not in eligible_tills(GIFT)]
    printed = [Voucher(PRINTED, number) for number in range(TYPED_COUNT + 1)]
    steps = [
        Step((LOSSY_TILL,), Deed.SCAN_ANSWER_LOST, lost, "answer lost, asked again"),
        Step((LOSSY_TILL,), Deed.SCAN_TILL_KILLED, killed, "till killed, asked again"),
        *at_one(Deed.SCAN_FORGED, deck.take(FORGED_COUNT), "forged", "unknown_code"),
        *at_one(Deed.SCAN, [Voucher(ENDED, n) for n in range(EXPIRED_COUNT)], "campaign over", "expired"),
        *at_one(Deed.SCAN, voided, "voided", "voided"),
        *at_one(Deed.TAKE_BACK, deck.take(REVERSED_COUNT, BREAD), "reversed by the cashier", "accepted", "reversed"),
        *at_one(Deed.TYPE, printed[:-1], "typed", "accepted"),
        *at_one(Deed.TYPE_WRONGLY, printed[-1:], "typed wrongly", "unreadable"),
    ]
    for n, voucher in enumerate(deck.take(WRONG_STORE_COUNT, GIFT)):
        steps.append(Step((wrong[n],), Deed.SCAN, voucher, "wrong store", ("not_eligible",)))
    return steps, voided


def _act(deck: _Deck, name: str, steps: Sequence[Step], kill: str = "") -> Act:
    scans = sum(len(step.tills) for step in steps)
    kill_after = deck.number(f"kill {name}", scans // 5, scans // 2) if kill else 0
    return Act(name, tuple(deck.shuffled(f"act {name}", steps)), kill, kill_after)


def as_presented(plan: Plan, codes: Mapping[Voucher, str]) -> dict[Voucher, str]:
    """What shoppers present for each voucher: its code, but for forgers and bad typists."""
    presented = dict(codes)
    for act in plan.acts:
        for step in act.steps:
            if step.deed is Deed.SCAN_FORGED:
                presented[step.voucher] = _one_character_changed(codes[step.voucher])
            elif step.deed is Deed.TYPE_WRONGLY:
                presented[step.voucher] = _one_digit_wrong(codes[step.voucher])
    return presented


def _one_character_changed(code: str) -> str:
    """A signed code whose signature is wrong."""
    return code[:-1] + _ALPHABET[(_ALPHABET.index(code[-1]) + 1) % len(_ALPHABET)]


def _one_digit_wrong(code: str) -> str:
    """A typed code as a cashier mistypes it."""
    return str((int(code[0]) + 1) % 10) + code[1:]

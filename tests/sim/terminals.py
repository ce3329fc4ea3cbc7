"""Tills of the simulated world: they mint ids, send, time out, and ask again with the same id for ever."""

import random
from collections.abc import Sequence
from typing import Protocol

import msgspec
from sim.chance import Pace
from sim.deployment import BASE_MS, ISSUED, TYPED_CODES, signed_code
from sim.gateways import Gateway
from sim.loop import SimLoop
from sim.models import Note
from sim.operator_desk import Operator

from gateway.lane import Asked
from gateway.messages import Fact, Redeem, Reverse

UNRESOLVED = 255
SCANS_MAX = 4  # in one message
LATE_S_MAX = 3.0  # after which the line is back and they are told
OPEN_MAX = 8  # unanswered requests at which the cashier stops scanning
PATIENCE_S_MAX = 0.5  # a till waits twice as long each time, up to this
TOGETHER_SHARE = 0.7  # of the times a till asks again it puts what is of one kind into one message


class Wish(msgspec.Struct, eq=False):
    """One request in a till's journal. `voucher` is what its code names, if it names one by itself."""

    terminal: int
    body: Redeem | Reverse
    code: str
    voucher: tuple[int, int] | None
    of: "Wish | None" = None  # a reversal: what it undoes
    first_sent_s: float | None = None
    verdict: int | None = None  # the newest answer
    sends: int = 0
    is_fact: bool = False  # accepted at the till: it is told, not asked


class Told(msgspec.Struct, eq=False):
    """One answer that reached a till: `verdict` is the logged byte behind it."""

    wish: Wish
    at_s: float
    sent_s: float  # when this answer was asked for
    by: str  # which life of which gateway
    verdict: int
    place: tuple[int, int, int]  # partition, seq, index
    entry: bytes | None  # the redemption named as being in the way
    as_fact: bool = False  # it was told, not asked


class Shop(Protocol):
    """What a till sees of the world."""

    loop: SimLoop
    choose: random.Random
    pace: Pace
    note: Note
    lost_share: float
    doubled_share: float
    typed_share: float
    misuse_share: float
    news_share: float
    fact_share: float
    history: list[Told]
    operator: Operator
    sold: int
    events: int

    def some_gateway(self) -> Gateway | None: ...


class Terminal:
    """A till, its journal, and the requests it has on the way."""

    def __init__(self, shop: Shop, number: int) -> None:
        self._shop, self.number = shop, number
        self.journal: list[Wish] = []
        self.open: set[Wish] = set()
        self._stranded: dict[Wish, None] = {}  # to be asked as soon as there is a gateway
        self._life = 0
        self._is_down = False
        self._patience_s = 40 * shop.pace.typical_s + 0.05

    # --- what it does ---

    @property
    def is_free(self) -> bool:
        """Whether a cashier may do something here now."""
        return not self._is_down and len(self.open) <= OPEN_MAX

    def act(self) -> None:
        """One thing a till may do next, if it may do anything (`is_free`)."""
        chance = self._shop.choose.random()
        if chance < 0.6 or not self.journal:
            self._scan()
        elif chance < 0.6 + self._shop.misuse_share:
            self._misuse_an_id()
        elif chance < 0.85:
            self._reverse()
        else:
            self._send([self._earlier()])

    def _scan(self) -> None:
        count = 1 if self._shop.choose.random() < 0.6 else self._shop.choose.randint(2, SCANS_MAX)
        wishes = [self._wish_for(*self._some_code()) for _ in range(count)]
        if self._shop.choose.random() < self._shop.fact_share:
            self._accept_offline(wishes)
            return
        if count > 1 and self._shop.choose.random() < 0.1:
            wishes.append(wishes[0])
        self._send(wishes)

    def _accept_offline(self, wishes: Sequence[Wish]) -> None:
        """The value is given; some were asked for before the line broke, and the rest are told when it is back."""
        choose, loop = self._shop.choose, self._shop.loop
        if choose.random() < 0.3:
            self._send(wishes)
        for wish in wishes:
            wish.is_fact = wish.voucher is not None  # other codes cannot be checked at a till
        facts = [wish for wish in wishes if wish.is_fact]
        choose.shuffle(facts)
        loop.at(loop.now_s + LATE_S_MAX * choose.random() ** 2, loop.world, self._tell_facts, facts)
        if len(facts) < len(wishes):
            self._send([wish for wish in wishes if not wish.is_fact])

    def _tell_facts(self, facts: Sequence[Wish]) -> None:
        self.open.update(facts)
        if not self._is_down:
            self.ask_again(facts)

    def _some_code(self) -> tuple[str, tuple[int, int] | None]:
        """Mostly one of a few vouchers that several tills try at once; they change as the run goes on."""
        choose, shop = self._shop.choose, self._shop
        shop.sold += 1
        chance = choose.random()
        news = shop.operator.news
        if news and chance >= 1 - shop.news_share:
            return choose.choice(news)
        if chance < shop.typed_share:
            return choose.choice(TYPED_CODES), None
        if chance < shop.typed_share + 0.02:
            serial = ISSUED + choose.randint(1, 4)
            return signed_code(1, serial), (1, serial)
        serial = 1 + shop.sold // 12 * 2 % 512 + choose.randrange(3) + 64 * choose.choice((0, 1, 5))
        campaign = choose.randint(1, 2)
        return signed_code(campaign, serial), (campaign, serial)

    def _wish_for(self, code: str, voucher: tuple[int, int] | None) -> Wish:
        refs = ("receipt",) if self._shop.choose.random() < 0.1 else ()
        wish = Wish(self.number, Redeem(self._new_id(), code, self._now_ms(), 1, *refs), code, voucher)
        return self._journalled(wish)

    def _journalled(self, wish: Wish) -> Wish:
        self.journal.append(wish)
        self.open.add(wish)
        return wish

    def _earlier(self) -> Wish:
        recent = self.journal[-12:]
        return self._shop.choose.choice(recent if self._shop.choose.random() < 0.7 else self.journal)

    def _reverse(self) -> None:
        choose = self._shop.choose
        target = self._earlier()
        if isinstance(target.body, Reverse):
            return self._send([target])
        knows_it = target.verdict is not None and choose.random() < 0.3
        original = None if knows_it else target.body
        body = Reverse(self._new_id(), target.body.redemption_id, self._now_ms(), original)
        wish = self._journalled(Wish(self.number, body, target.code, target.voucher, target))
        return self._send([wish])

    def _misuse_an_id(self) -> None:
        """A fault in a till: another code under an id it used before."""
        old = self._earlier()
        if isinstance(old.body, Reverse):
            return
        code, voucher = self._some_code()
        body = Redeem(old.body.redemption_id, code, self._now_ms())
        self._send([self._journalled(Wish(self.number, body, code, voucher))])

    def scan_fresh(self, campaign: int, serial: int) -> None:
        """Redeem a voucher that nobody else tries."""
        self._send([self._wish_for(signed_code(campaign, serial), (campaign, serial))])

    def scan_newest(self) -> None:
        """Try one of the codes that became known last, if there are any."""
        if self._shop.operator.news and self.is_free:
            self._send([self._wish_for(*self._shop.choose.choice(self._shop.operator.news))])

    def _now_ms(self) -> int:
        return BASE_MS + int(self._shop.loop.now_s * 1000)

    def _new_id(self) -> bytes:
        raw = bytearray(self._now_ms().to_bytes(6, "big") + self._shop.choose.randbytes(10))
        raw[6] = raw[6] & 15 | 0x70
        return bytes(raw)

    # --- ask and be answered ---

    def _send(self, wishes: Sequence[Wish]) -> None:
        kind = type(wishes[0].body)
        is_fact = wishes[0].is_fact
        wishes = [wish for wish in wishes if type(wish.body) is kind and wish.is_fact == is_fact]
        shop, loop = self._shop, self._shop.loop
        for wish in wishes:
            wish.sends += 1
            if wish.first_sent_s is None:
                wish.first_sent_s = loop.now_s
        gateway = shop.some_gateway()
        if gateway is None:
            self._stranded.update(dict.fromkeys(wishes))
            return
        if shop.choose.random() >= shop.lost_share:
            copies = 2 if shop.choose.random() < shop.doubled_share else 1
            for _ in range(copies):
                arrives_s = loop.now_s + shop.pace.delay_s()
                loop.at(arrives_s, gateway.owner, self._arrive, gateway, wishes, self._life, loop.now_s, is_fact)
        patience_s = min(self._patience_s * 2 ** min(wishes[0].sends - 1, 6), max(self._patience_s, PATIENCE_S_MAX))
        loop.at(loop.now_s + patience_s, loop.world, self._timed_out, [(wish, wish.sends) for wish in wishes])

    def _arrive(self, gateway: Gateway, wishes: Sequence[Wish], life: int, sent_s: float, as_fact: bool) -> None:
        """The message reaches the gateway; runs as the gateway."""
        shop = self._shop
        if not gateway.is_up:
            return
        particulars = (self.number, gateway.owner.name, [wish.body for wish in wishes])
        shop.note("tell" if as_fact else "ask", particulars, None, len(wishes))
        is_arriving = True

        def done(asked: Asked) -> None:
            if is_arriving and asked.codes.count(UNRESOLVED) == len(asked.codes):
                shop.events -= len(wishes)  # sent away at the door: nothing happened
            if shop.choose.random() >= shop.lost_share:
                arrives_s = shop.loop.now_s + shop.pace.delay_s()
                by = gateway.owner.name
                shop.loop.at(arrives_s, shop.loop.world, self._answered, asked, wishes, life, by, sent_s, as_fact)

        if as_fact:
            bodies = [wish.body for wish in wishes if isinstance(wish.body, Redeem)]
            gateway.take_facts(self.number, [Fact(one, one.scanned_ms, one.scanned_ms) for one in bodies], done)
        elif isinstance(wishes[0].body, Reverse):
            gateway.reverse(self.number, [wish.body for wish in wishes if isinstance(wish.body, Reverse)], done)
        else:
            gateway.redeem(self.number, [wish.body for wish in wishes if isinstance(wish.body, Redeem)], done)
        is_arriving = False

    def _answered(self, asked: Asked, wishes: Sequence[Wish], life: int, by: str, sent_s: float, as_fact: bool) -> None:
        if life != self._life:
            return
        shop = self._shop
        verdicts = len(asked.codes) - asked.codes.count(UNRESOLVED)
        if not verdicts:
            return  # it is asked again when its time is over
        shop.note("answer", (self.number, by, bytes(asked.codes), asked.places), None, verdicts)
        for first, partition, seq, index, count in asked.places:
            for number in range(first, first + count):
                verdict, wish = asked.codes[number], wishes[number]
                if verdict == UNRESOLVED:
                    continue
                wish.verdict = verdict
                if as_fact or not wish.is_fact:  # a fact is told until it is answered as one
                    self.open.discard(wish)
                place = (partition, seq, index + number - first)
                entry = asked.told.get(number)
                told = Told(wish, shop.loop.now_s, sent_s, by, verdict, place, entry, as_fact)
                shop.history.append(told)

    def _timed_out(self, sent: Sequence[tuple[Wish, int]]) -> None:
        """Ask again for what has no answer and was not asked for since."""
        if not self._is_down:
            self.ask_again([wish for wish, sends in sent if wish in self.open and wish.sends == sends])

    def ask_again(self, wishes: Sequence[Wish]) -> None:
        """Unanswered requests, each by itself or all of a kind together: they may have been answered in part."""
        if not wishes:
            return
        together = self._shop.choose.random() < TOGETHER_SHARE
        groups: dict[object, list[Wish]] = {}
        for wish in dict.fromkeys(wishes):
            groups.setdefault((type(wish.body), wish.is_fact) if together else id(wish), []).append(wish)
        for group in groups.values():
            self._send(group)

    def line_is_back(self) -> None:
        """A gateway is ready again: everything that waits for one is sent."""
        if self._stranded and not self._is_down:
            stranded, self._stranded = self._stranded, {}
            self.ask_again([wish for wish in stranded if wish in self.open])

    def crash(self) -> None:
        """Lose what was on the way; the journal stays."""
        self._life += 1
        self._is_down = True
        self._stranded.clear()

    def restart(self) -> None:
        """Come back with the journal: ask for everything that has no answer."""
        self._is_down = False
        self.ask_again([wish for wish in self.journal if wish in self.open])

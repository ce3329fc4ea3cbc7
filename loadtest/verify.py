"""Whether a run was correct: its journals, the event log and Valkey compared by ten invariants, L1 to L10. Pure.

    L1   each voucher was accepted at most once, net of reversals
    L2   every answer that was told, acceptances before all, stands in the log where it was told
    L3   every logged redemption and reversal was asked for, and no more often than it was sent
    L4   the log replayed = the gateways' indexes of ids = the state in Valkey, to the byte
    L5   what the gateways counted by store and campaign = the sums over the log
    L6   the log is one gapless chain per partition, every checksum right
    L7   one id, one answer: in the journals, in the log, and asked again now
    L8   nothing was accepted before its campaign began or after it ended, by the log's own clock
    L9   every attempt that was not answered, or not at once, had one outcome
    L10  issued = active + redeemed + expired + void, and nothing else was ever redeemed

Each is first held against numbers and rows gathered by the other verify_ modules, which share with the gateway only the
layout of what is stored.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import BinaryIO

from loadtest.evidence import CONTROL, Answered, Campaign, Control, Held, Judgement, Stored, Totals
from loadtest.run_files import Attempt, Run
from loadtest.verify_ids import Expected, Ids, Scope, check_answers
from loadtest.verify_index import Index
from loadtest.verify_log import Walk, totals_differences
from loadtest.verify_rows import BUCKETS, Buckets, Faults, id_bucket, tried_row
from loadtest.verify_vouchers import Vouchers, keep_held, overlap

CLOCK_MS_MAX = 1000  # a record dated this long before the run is not of it: history that was written, or other scans
OPEN_ASKED_MAX = 100  # attempts without an answer that the gateway is asked for, beside the sample


class Verification:
    """Takes the evidence in this order: attempts, batches (control first), indexes, what Valkey holds, answers."""

    def __init__(
        self,
        run: Run,
        control: Control,
        totals: Sequence[Totals],
        make_file: Callable[[], BinaryIO],
        *,
        is_whole: bool,
        sample: Iterable[int],
    ) -> None:
        """`is_whole`: the deployment was made for this run; `sample`: numbers of attempts a gateway is asked for."""
        self.run, self.control, self.totals = run, control, totals
        self.make_file = make_file
        self._by_id, self._by_voucher, self._tried, self._held = (Buckets(make_file) for _ in range(4))
        self.walk = Walk(control, totals, self._by_id, self._by_voucher)
        self.indexes: list[Index] = []
        self.attempts = 0
        self.no_valkey = "nobody asked Valkey"  # why L4 cannot be told; empty: it can
        self.not_asked = "no gateway was asked"
        self.was_started = False  # a gateway was started for this: Valkey's state is what recovery made of it
        self.asked = 0
        self._is_whole, self._asked, self._open_asked = is_whole, set(sample), 0
        self._terminals: set[int] = set()
        self._odd_keys = Faults()
        self.ids: Ids | None = None
        self.vouchers: Vouchers | None = None

    def attempt(self, attempt: Attempt) -> None:
        """The next line of a journal. Raises BadAttempt."""
        redemption_id, row = tried_row(self.attempts, attempt)
        self._tried.add(id_bucket(redemption_id), row)
        self._terminals.add(attempt.terminal)
        if attempt.ended_us is None and attempt.sent_us is not None and self._open_asked < OPEN_ASKED_MAX:
            self._asked.add(self.attempts)
            self._open_asked += 1
        self.attempts += 1

    def batch(self, batch: Stored) -> None:
        """The next batch of its partition."""
        self.walk.take(batch)

    def index(self, where: str, applied: Mapping[int, int]) -> Index:
        """One more index of a gateway, to be told its rows."""
        self.indexes.append(Index(where, applied, self.make_file))
        return self.indexes[-1]

    def held(self, held: Held) -> None:
        """One field of one hash in Valkey."""
        keep_held(self._held, held, self._odd_keys)

    def heads(self, heads: Mapping[int, tuple[int, bytes]]) -> None:
        """Valkey's heads, after everything it holds was told."""
        self.no_valkey = ""
        for partition, head in sorted(heads.items()):
            ours = self.walk.heads.get(partition, (0, bytes(16)))
            if ours != head:
                text = f"partition {partition}: the log ends at batch {ours[0]}, Valkey at {head[0]}"
                self._odd_keys.add((partition,), text + (", on another chain" if ours[0] == head[0] else ""))

    def compare(self, advance: Callable[[int], None] = lambda buckets: None) -> list[Expected]:
        """Compare everything; returns what a gateway must answer to the ids it is asked for."""
        purged = {number for number, campaign in self.control.campaigns.items() if campaign.purged}
        scope = Scope(None if self._is_whole else self._terminals, self.run.started_ms - CLOCK_MS_MAX)
        self.ids = Ids(scope, self.walk.reversed, purged, self._asked)
        self.vouchers = Vouchers(self.control, with_valkey=not self.no_valkey)
        for bucket in range(BUCKETS):
            by_id = self.ids.compare(self._tried.take(bucket), self._by_id.take(bucket))
            for index in self.indexes:
                index.compare(bucket, by_id, self._odd_keys)
            self.vouchers.compare(self._by_voucher.take(bucket), self._held.take(bucket))
            advance(1)
        return self.ids.expected

    def answers(self, expected: Sequence[Expected], answers: Sequence[Answered]) -> None:
        """What a gateway said to the ids it was asked for."""
        assert self.ids is not None, "after compare()"
        self.not_asked = ""
        self.asked = check_answers(expected, answers, self.ids.stable)

    def judged(self, at_ms: int) -> list[Judgement]:
        """All ten, in order; `at_ms` is now: what has ended by then is expired."""
        assert self.ids is not None, "after compare()"
        assert self.vouchers is not None, "after compare()"
        lost = f"{self.walk.unread} batches of the log cannot be read" if self.walk.unread else ""
        few = self._few_attempts()
        state, twice = self.vouchers.state, self.vouchers.twice
        return [
            once(twice, self.vouchers, lost),
            acknowledged(self.ids, few or lost),
            asked_for(self.ids, few or lost),
            one_state(self._odd_keys, state, self.vouchers, self.indexes, self.no_valkey or lost, self.was_started),
            sums(totals_differences(self.walk, self.totals, self.control.stores), self.walk, self.totals, lost),
            chain(self.walk),
            one_answer(self.ids, self.asked, self.not_asked, few or lost),
            in_time(self.walk, lost),
            one_outcome(self.ids, few or lost),
            conserved(self.vouchers, self.control.campaigns, at_ms, lost),
        ]

    def _few_attempts(self) -> str:
        offered = self.run.counts.offered
        if self.attempts == offered:
            return ""
        return f"the journals hold {self.attempts} attempts, and the run offered {offered}"


def _judgement(
    name: str, says: str, faults: Iterable[Faults], compared: dict[str, int], cannot: str = "", left_out: str = ""
) -> Judgement:
    """Broken if anything is; else not to be told where `cannot` says why; else it holds."""
    found = [each for each in faults if each.count]
    if found:
        return Judgement(name, says, False, compared, sum(each.count for each in found), found[0].first, cannot)
    return Judgement(name, says, None if cannot else True, compared, why=cannot or left_out)


def once(twice: Faults, vouchers: Vouchers, cannot: str) -> Judgement:
    """L1."""
    compared = {"vouchers": vouchers.vouchers, "accepted": vouchers.accepted, "reversed": vouchers.reversed}
    return _judgement("L1", "each voucher accepted at most once, net of reversals", [twice], compared, cannot)


def acknowledged(ids: Ids, cannot: str) -> Judgement:
    """L2."""
    compared = {"accepted": ids.accepted, "answers": ids.answers, "without a position": ids.unplaced}
    return _judgement("L2", "every answer that was told stands in the log", [ids.told], compared, cannot)


def asked_for(ids: Ids, cannot: str) -> Judgement:
    """L3."""
    compared = {"records": ids.logged, "of others": ids.before}
    if ids.answers and not ids.logged and ids.before:
        cannot = cannot or "the log dates all its records before the run: do the clocks differ?"
    return _judgement("L3", "every logged redemption was asked for", [ids.phantoms], compared, cannot)


def one_state(
    odd: Faults, state: Faults, vouchers: Vouchers, indexes: Collection[Index], cannot: str, was_started: bool
) -> Judgement:
    """L4."""
    compared = {
        "vouchers in the log": vouchers.vouchers,
        "imported codes": vouchers.codes,
        "held in Valkey": vouchers.held,
        "indexed ids": sum(index.rows for index in indexes),
        "indexes": len(indexes),
    }
    says = "the log replayed = the gateways' indexes = the state in Valkey"
    cannot = cannot or ("" if indexes else "no gateway kept an index here")
    after = "what Valkey held when the run ended: a gateway was started since" if was_started else ""
    return _judgement("L4", says, [odd, state], compared, cannot, after)


def sums(differences: Faults, walk: Walk, totals: Sequence[Totals], cannot: str) -> Judgement:
    """L5."""
    newest = {partition: seq for partition, (seq, _) in walk.heads.items() if partition != CONTROL}
    behind = sum(max(0, seq - one.counted.get(partition, 0)) for one in totals for partition, seq in newest.items())
    cells = sum(len(one.cells) for one in totals)
    compared = {"sums": cells, "gateways": len(totals), "records": walk.records, "batches not counted yet": behind}
    says = "totals by store and campaign = sums over the log"
    nobody = "" if totals else "no gateway kept totals here (console.served = false?)"
    return _judgement("L5", says, [differences], compared, cannot or nobody)


def chain(walk: Walk) -> Judgement:
    """L6."""
    compared = {"batches": walk.batches, "records": walk.records, "partitions": len(walk.heads)}
    return _judgement("L6", "the log is gapless, its chain and its checksums intact", [walk.chain], compared)


def one_answer(ids: Ids, asked: int, not_asked: str, cannot: str) -> Judgement:
    """L7."""
    compared = {"answers": ids.answers, "sent again": ids.retried, "asked now": asked}
    says = "the same id always got the same answer"
    return _judgement("L7", says, [ids.stable], compared, cannot, not_asked)


def in_time(walk: Walk, cannot: str) -> Judgement:
    """L8."""
    accepted = sum(n for ((op, _, _), verdict), n in walk.cells.items() if (op, verdict) == (1, 0))
    compared = {
        "accepted": accepted,
        "decided before the end, logged after": walk.late,
        "offline, told later": walk.facts,
    }
    return _judgement("L8", "nothing accepted before its beginning or after its end", [walk.windows], compared, cannot)


def one_outcome(ids: Ids, cannot: str) -> Judgement:
    """L9."""
    compared = {
        "sent again": ids.retried,
        "never answered": ids.open_accepted + ids.open_refused + ids.open_absent,
        "of these accepted": ids.open_accepted,
        "refused": ids.open_refused,
        "never arrived": ids.open_absent,
    }
    return _judgement("L9", "every unknown outcome was exactly one", [ids.unknown], compared, cannot)


def conserved(vouchers: Vouchers, campaigns: Mapping[int, Campaign], at_ms: int, cannot: str) -> Judgement:
    """L10."""
    faults = Faults()
    compared = dict.fromkeys(("issued", "active", "redeemed", "expired", "void"), 0)
    for number, campaign in sorted(campaigns.items()):
        issued = sum(count for _, count in campaign.issued)
        redeemed, void = vouchers.redeemed[number], vouchers.voided[number]
        left = issued - redeemed - void
        if twice := overlap(campaign):
            faults.add((number,), f"campaign {number}: the issues from serial {twice[0]} and {twice[1]} share serials")
        elif left < 0:
            faults.add((number,), f"campaign {number}: {issued} issued, {redeemed} redeemed and {void} void")
        for name, n in (("issued", issued), ("redeemed", redeemed), ("void", void)):
            compared[name] += n
        compared["expired" if campaign.closed or at_ms >= campaign.ends_ms else "active"] += left
    says = "issued = active + redeemed + expired + void"
    return _judgement("L10", says, [vouchers.conserved, faults], compared, cannot)

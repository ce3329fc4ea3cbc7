"""What came of the demo: the journals put beside the plan, the proof beside both; as an object and as tables."""

from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gateway.demo_plan import Plan
from gateway.demo_scanners import Use
from gateway.demo_story import Kill, Outcome
from gateway.messages import Verdict
from gateway.proof import Proof
from gateway.proof_equalities import Told


class Case(msgspec.Struct, frozen=True):
    """One step that was more than a plain redemption: what each till was told, as a verdict and in words."""

    case: str
    act: str
    deed: str
    stores: list[str]
    verdicts: list[str]
    told: list[str]
    expected: list[str]
    as_expected: bool


class Result(msgspec.Struct, frozen=True):
    """Everything `tillgate demo --json` prints. `holds`: every equality, and every verdict as it had to be."""

    holds: bool
    seed: int
    stores: int
    phones: int
    vouchers: dict[str, int]
    scans: int
    told: dict[str, int]  # final answers by public verdict
    plain_redemptions: int
    plain_as_expected: bool
    cases: list[Case]
    kills: list[Kill]
    scanners: list[Use]  # one a till
    scanners_as_expected: bool  # whatever waits for an ACK got it, and no yes was sounded that no till was told
    proof: Proof
    seconds: dict[str, float]


def cases_of(outcomes: Sequence[Outcome], journals: Sequence[Sequence[Told]], stores: Sequence[str]) -> list[Case]:
    """Every outcome with its verdicts from the journals, by till in the order of scans; plain ones have case ''."""
    return [_case(outcome, journals, stores) for outcome in outcomes]


def _case(outcome: Outcome, journals: Sequence[Sequence[Told]], stores: Sequence[str]) -> Case:
    step, verdicts = outcome.step, list[str]()
    told = list[str]()
    for reading in outcome.readings:
        record = journals[reading.till][reading.number]
        assert record.redemption_id.endswith(reading.tail), "journal and screen speak of different scans"
        verdicts.append(_name(record.verdict))
        verdicts += [_name(reversal.verdict) for reversal in record.reversals]
        told += filter(None, (reading.told, reading.told_later))
    return Case(
        case=step.case,
        act=outcome.act,
        deed=step.deed.value,
        stores=[stores[reading.till] for reading in outcome.readings],
        verdicts=verdicts,
        told=told,
        expected=list(step.expected),
        as_expected=sorted(verdicts) == sorted(step.expected),
    )


def _name(verdict: int | None) -> str:
    return "unanswered" if verdict is None else Verdict(verdict).name.lower()


def result_of(
    plan: Plan,
    cases: Sequence[Case],
    kills: Sequence[Kill],
    scanners: Sequence[Use],
    proof: Proof,
    *,
    seed: int,
    stores: int,
    phones: int,
    vouchers: Mapping[str, int],
    seconds: Mapping[str, float],
) -> Result:
    plain = [case for case in cases if not case.case]
    told: dict[str, int] = {}
    for case in cases:
        for verdict in case.verdicts:
            told[verdict] = told.get(verdict, 0) + 1
    scanners_as_expected = _are_as_expected(scanners, told.get("accepted", 0))
    return Result(
        holds=proof.holds and scanners_as_expected and all(case.as_expected for case in cases),
        seed=seed,
        stores=stores,
        phones=phones,
        vouchers=dict(vouchers),
        scans=sum(len(case.stores) for case in cases),
        told=dict(sorted(told.items(), key=lambda pair: -pair[1])),
        plain_redemptions=len(plain),
        plain_as_expected=all(case.as_expected for case in plain),
        cases=sorted((case for case in cases if case.case), key=lambda case: plan.cases.index(case.case)),
        kills=list(kills),
        scanners=list(scanners),
        scanners_as_expected=scanners_as_expected,
        proof=proof,
        seconds={name: round(took, 2) for name, took in seconds.items()},
    )


def _are_as_expected(scanners: Sequence[Use], accepted: int) -> bool:
    """A yes may be left out, where something newer was scanned meanwhile, and is never made up."""
    talking = [use for use in scanners if use.sounds_verdicts]
    acked = all(use.acks >= use.reads for use in scanners if use.waits_for_ack)
    return acked and all(use.verdicts["good"] for use in talking) and _sounded(talking, "good") <= accepted


def _sounded(scanners: Sequence[Use], word: str) -> int:
    return sum(use.verdicts[word] for use in scanners)


def shown(result: Result) -> Group:
    """Tables for people."""
    tables = (_verdict_table, _case_table, _kill_table, _scanner_table, _proof_table)
    return Group(*(table(result) for table in tables), _verdict_line(result))


def _verdict_table(result: Result) -> Table:
    issued = f"{result.vouchers['issued']:,} vouchers, {result.scans:,} scans at {result.stores} stores"
    table = Table("answer", "told to tills", "in the log", title=issued)
    logged = result.proof.verdicts
    for name in (*result.told, *(name for name in logged if name not in result.told)):
        table.add_row(name.replace("_", " "), str(result.told.get(name, "-")), str(logged.get(name, "-")))
    return table


def _case_table(result: Result) -> Table:
    """One line for each kind of case, with the first of them told in full."""
    table = Table("case", "times", "the cashier was told", "", title="What is not an everyday scan", show_lines=True)
    kinds: dict[str, list[Case]] = {}
    for case in result.cases:
        kinds.setdefault(case.case, []).append(case)
    for kind, same in kinds.items():
        told = "\n".join(f"{store}: {text}" for store, text in _lines(same[0]))
        table.add_row(kind, str(len(same)), told, _mark(all(case.as_expected for case in same)))
    return table


def _lines(case: Case) -> list[tuple[str, str]]:
    stores = case.stores * len(case.told) if len(case.stores) == 1 else case.stores
    return list(zip(stores, case.told, strict=False))


def _kill_table(result: Result) -> Table:
    table = Table("kill -9", "after answers", "scans in the air", "back after", title="What was killed in the middle")
    for kill in result.kills:
        table.add_row(kill.what, str(kill.answered_before), str(kill.unanswered), f"{kill.back_ms} ms")
    return table


def _scanner_table(result: Result) -> Table:
    title = "What the scanners were told by their tills"
    table = Table("kind", "tills", "reads", "ACKs", "yes", "no", "wait", "", title=title)
    kinds: dict[str, list[Use]] = {}
    for use in result.scanners:
        kinds.setdefault(use.kind, []).append(use)
    for kind, uses in kinds.items():
        acks = str(sum(use.acks for use in uses)) if uses[0].waits_for_ack else "-"
        talks = uses[0].sounds_verdicts
        sounded = (str(_sounded(uses, word)) if talks else "-" for word in ("good", "bad", "wait"))
        reads = str(sum(use.reads for use in uses))
        table.add_row(kind, str(len(uses)), reads, acks, *sounded, _mark(result.scanners_as_expected))
    return table


def _proof_table(result: Result) -> Table:
    title = "The proof, by another process, from the log file, Valkey and the tills' journals alone"
    table = Table("it must hold that", "numbers", "", title=title, show_lines=True)
    for equality in result.proof.equalities:
        numbers = "\n".join(f"{number:,} {name}" for name, number in equality.numbers.items())
        said = "; ".join(filter(None, (equality.says, equality.difference)))
        table.add_row(said, numbers, _mark(equality.holds))
    return table


def _mark(good: bool) -> Text:
    return Text("holds", style="green") if good else Text("DIFFERS", style="bold red")


def _verdict_line(result: Result) -> Text:
    took = f"{result.seconds['total']:.1f} s, seed {result.seed}"
    if result.holds:
        kinds = dict.fromkeys(use.kind for use in result.scanners)
        talking = [use for use in result.scanners if use.sounds_verdicts]
        yes, no = _sounded(talking, "good"), _sounded(talking, "bad")
        scanners = f"Scanners: {'; '.join(kinds)}. {len(talking)} of them sounded {yes} times yes and {no} times no."
        return Text(f"{scanners}\nAll of it holds ({took}).", style="bold green")
    return Text(f"Something differs ({took}): see above.", style="bold red")

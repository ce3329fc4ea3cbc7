"""What a chaos run came to, for people, and many of them as one."""

import resource
from collections import Counter
from dataclasses import dataclass, field

from chaos_check import Found
from chaos_tills import Counts

QUIET_S = 5.0  # this long after the faults stop, every id has its answer


@dataclass
class Report:
    """What a run came to."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    fault_seconds: Counter[str] = field(default_factory=Counter)
    answers_at: Counter[str] = field(default_factory=Counter)  # while a fault of that kind was under way
    violations_of_servers: list[tuple[str, str]] = field(default_factory=list)
    taken_back: Counter[str] = field(default_factory=Counter)
    set_aside: int = 0
    unresolved: int = 0
    quiet_s: float = 0.0
    seconds: float = 0.0
    check_seconds: float = 0.0  # of them
    counts: Counts = field(default_factory=Counts)
    found: Found = field(default_factory=Found)
    counterexample: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.found.violations or self.violations_of_servers or self.unresolved)

    def add(self, other: "Report") -> None:
        """Count another chapter in; the first counterexample stays."""
        for name in ("faults", "fault_seconds", "answers_at", "taken_back"):
            getattr(self, name).update(getattr(other, name))
        self.violations_of_servers += other.violations_of_servers
        self.set_aside += other.set_aside
        self.unresolved += other.unresolved
        self.quiet_s = max(self.quiet_s, other.quiet_s)
        self.seconds += other.seconds
        self.check_seconds += other.check_seconds
        self.counts.add(other.counts)
        self.found.add_all(other.found)
        self.counterexample = self.counterexample or other.counterexample


def in_words(report: Report) -> str:
    """The report for people."""
    found, counts = report.found, report.counts
    lines = [f"{'fault':22}{'times':>6}{'seconds':>9}{'answers':>10}"]
    for name, times in sorted(report.faults.items()):
        lines.append(f"{name:22}{times:6}{report.fault_seconds[name]:9.1f}{report.answers_at[name]:10}")
    total = f"{sum(report.faults.values())} faults in {report.seconds:.0f} s, {counts.answers} answers"
    asked = f"{counts.unresolved} times unresolved and asked again, {counts.retries} repeats"
    aside = f"torn append-only files set aside: {report.set_aside}"
    lines += [
        f"seed {report.seed}: {total} ({found.accepted} accepted), {asked}, {counts.connections} connections",
        f"log: {found.batches} batches, {found.records} records, {found.vouchers} vouchers",
        f"answers by verdict: {dict(sorted(counts.by_code.items()))}",
        f"power failures that took back something, by file: {dict(report.taken_back)}; {aside}",
        f"unresolved {QUIET_S:g} s after the faults: {report.unresolved} (quiet after {report.quiet_s:.2f} s)",
        f"violations: {len(found.violations)} {found.by_rule() or ''}".rstrip(),
        f"servers that did what they must not: {len(report.violations_of_servers)}",
    ]
    lines += [f"  {name}: {what}" for name, what in report.violations_of_servers[:5]]
    if found.violations:
        lines += [f"first violation: {rule}: {what}" for rule, what, _ in found.violations[:1]]
        lines += [f"  {line}" for line in report.counterexample]
    return "\n".join(lines)


def in_chapter(report: Report) -> str:
    """One chapter of a long run, in a line."""
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    faults, violations = sum(report.faults.values()), len(report.found.violations)
    return (
        f"seed {report.seed}: {faults} faults, {report.counts.answers} answers, {violations} violations, "
        f"{report.unresolved} unresolved {QUIET_S:g} s after, {report.seconds:.0f} s "
        f"({report.check_seconds:.0f} s of them checking, {peak_mib} MiB at most)"
    )

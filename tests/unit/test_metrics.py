"""What is counted is told, under stable names, and cheaply."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eventstore.log import Batch, Head
from gateway.exposition import CAMPAIGNS_MAX, OTHER_CAMPAIGNS, Exposition, Snapshot
from gateway.messages import Verdict
from gateway.metrics import INVARIANTS, OTHER_STORES, STORES_MAX, Metrics
from gateway.recovery import Branch, PartitionHalted, Recovered

QUIET = Snapshot(ready=True, connected={"s1": 2}, lanes={"admitting": 1}, last_sequences={"0": 7, "control": 3})


def told(metrics: Metrics, snapshot: Snapshot = QUIET) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = Exposition(metrics).text(snapshot).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return told(metrics)[name, tuple(sorted(labels.items()))]


def test_a_message_is_counted_by_what_came_of_each_scan() -> None:
    metrics = Metrics("1")
    tally = metrics.tally("redeem", "stream")
    tally.in_flight += 2
    tally.answered("s1", bytes([0, 0, 2, 21, 255]), 0.003)
    tally.answered("s1", bytes([0]), 0.3)
    requests = {"transport": "stream"}
    name = "tillgate_redeem_requests_total"
    assert value(metrics, name, outcome="accepted", reason="accepted", **requests) == 3
    assert value(metrics, name, outcome="accepted", reason="repeated", **requests) == 1
    assert value(metrics, name, outcome="refused", reason="already_redeemed", **requests) == 1
    assert value(metrics, name, outcome="unresolved", reason="unresolved", **requests) == 1
    assert value(metrics, "tillgate_idempotent_replays_total", op="redeem") == 1
    assert value(metrics, "tillgate_requests_in_flight", op="redeem") == 0
    store = {
        outcome: value(metrics, "tillgate_redeem_store_requests_total", store="s1", outcome=outcome)
        for outcome in ("accepted", "refused", "already_redeemed", "unresolved")
    }
    assert store == {"accepted": 4, "refused": 0, "already_redeemed": 1, "unresolved": 1}
    bucket, outcome = "tillgate_redeem_duration_seconds_bucket", {"outcome": "accepted", **requests}
    assert [value(metrics, bucket, le=le, **outcome) for le in ("0.0025", "0.005", "0.25", "0.5", "+Inf")] == [
        *(0, 3, 3, 4, 4)
    ]
    assert value(metrics, "tillgate_redeem_duration_seconds_sum", **outcome) == pytest.approx(0.309)


def test_reversals_do_not_count_as_redemptions_of_a_store() -> None:
    metrics = Metrics("1")
    metrics.tally("redeem", "http")
    metrics.tally("reverse", "http").answered("s1", bytes([1]), 0.1)
    names = {name for name, _ in told(metrics)}
    assert "tillgate_reverse_requests_total" in names
    assert "tillgate_redeem_store_requests_total" not in names


def test_stores_are_bounded() -> None:
    metrics = Metrics("1")
    tally = metrics.tally("redeem", "stream")
    for number in range(STORES_MAX + 5):
        tally.answered(f"s{number}", b"\0", 0.1)
    connected = {f"s{number}": 1 for number in range(STORES_MAX + 5)}
    samples = told(metrics, Snapshot(connected=connected))
    for name, more in (
        ("tillgate_redeem_store_requests_total", [("outcome", "accepted")]),
        ("tillgate_terminals_connected", []),
    ):
        assert samples[name, (*more, ("store", OTHER_STORES))] == 5
    assert sum(name == "tillgate_terminals_connected" for name, _ in samples) == STORES_MAX + 1


def test_campaigns_are_bounded() -> None:
    vouchers = {f"c{number}": (1, 2, 3, 4) for number in range(CAMPAIGNS_MAX + 2)}
    samples = told(Metrics("1"), Snapshot(vouchers=vouchers, conflicts={"tea": (3,)}))
    told_of = [dict(labels) for name, labels in samples if name == "tillgate_vouchers"]
    assert len({labels["campaign"] for labels in told_of}) == CAMPAIGNS_MAX + 1
    assert samples["tillgate_vouchers", (("campaign", OTHER_CAMPAIGNS), ("state", "voided"))] == 6
    assert samples["tillgate_offline_conflicts_total", (("campaign", "tea"),)] == 3
    assert samples["tillgate_vouchers", (("campaign", f"c{CAMPAIGNS_MAX + 1}"), ("state", "expired"))] == 4


def test_failed_claims_are_told_before_there_is_one() -> None:
    metrics = Metrics("1")
    assert value(metrics, "tillgate_valkey_errors_total", op="claim", cause="refused") == 0
    metrics.claim_failed("refused")
    metrics.claimed(0.002)
    assert value(metrics, "tillgate_valkey_errors_total", op="claim", cause="refused") == 1
    assert value(metrics, "tillgate_valkey_op_duration_seconds_count", op="claim") == 1


def test_invariants_are_told_before_they_are_violated() -> None:
    metrics = Metrics("1")
    for invariant in INVARIANTS:
        assert value(metrics, "tillgate_invariant_violations_total", invariant=invariant) == 0
    metrics.violated("id_reused")
    assert value(metrics, "tillgate_invariant_violations_total", invariant="id_reused") == 1


def test_batches_commits_and_recoveries() -> None:
    metrics = Metrics("1")
    metrics.batch(Batch(0, 1, b"", b"", b"", bytes(64)), 0.002)
    metrics.commit(0.0001, 1)
    metrics.recovered(0, Recovered(Head(1, b""), (Branch.BEHIND,)))
    metrics.recovered(1, PartitionHalted(1, "why"))
    assert value(metrics, "tillgate_events_appended_total", kind="voucher") == 64
    assert value(metrics, "tillgate_event_batch_size_bucket", le="64") == 1
    assert value(metrics, "tillgate_event_batch_size_bucket", le="16") == 0
    assert value(metrics, "tillgate_event_log_fsync_duration_seconds_count") == 1
    assert value(metrics, "tillgate_partition_recoveries_total", branch="behind") == 1
    assert value(metrics, "tillgate_partition_recoveries_total", branch="halted") == 1


def test_the_snapshot_and_the_process_are_told() -> None:
    metrics = Metrics("9.9")
    samples = told(metrics)
    assert samples["tillgate_ready", ()] == 1
    assert samples["tillgate_terminals_connected", (("store", "s1"),)] == 2
    assert samples["tillgate_event_log_last_sequence", (("partition", "control"),)] == 3
    assert any(dict(labels).get("version") == "9.9" for name, labels in samples if name == "tillgate_build_info")
    assert any(name.startswith("process_") for name, _ in samples)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_an_outcome(verdict: Verdict) -> None:
    metrics = Metrics("1")
    metrics.tally("redeem", "stream").answered("s", bytes([verdict]), 0.1)
    counted = [
        dict(labels)
        for (name, labels), count in told(metrics).items()
        if name == "tillgate_redeem_requests_total" and count
    ]
    assert [labels["reason"] for labels in counted] == [verdict.name.lower()]


def test_a_scrape_with_the_most_stores_is_not_much_text() -> None:
    """A thousand stores are what a scrape every five seconds can bear: half a megabyte, ten milliseconds (measured)."""
    metrics = Metrics("1")
    tallies = [metrics.tally(op, transport) for op in ("redeem", "reverse") for transport in ("stream", "http")]
    for tally in tallies:
        for number in range(2 * STORES_MAX):
            tally.answered(f"store-{number}", bytes([0, 21, 255]), 0.004)
    connected = {f"store-{number}": 3 for number in range(2 * STORES_MAX)}
    text = Exposition(metrics).text(Snapshot(connected=connected))
    assert len(text) < 500_000
    assert text.count(b"\n") < 5 * STORES_MAX + 1000

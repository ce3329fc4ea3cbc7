"""The boards of the service itself: overview, redeem, event log, claims and Valkey."""

from panels import BAD, GOOD, JOB, WARN, Json, board, heat, plot, quantile, rate, stat

UNRESOLVED = 'outcome="unresolved"'


def overview() -> Json:
    panels = [
        stat(
            "Verdicts a second",
            f"sum(job:tillgate_redeem_requests:rate5m{{{JOB}}})",
            "reqps",
            text="Accepted and refused, all doors, over five minutes.",
        ),
        stat(
            "Availability budget left",
            f"job:tillgate_redeem_availability:budget_left{{{JOB}}}",
            "percentunit",
            text="Of what the campaign may leave unanswered. Below 0 it is spent.",
            base=BAD,
            limits=((0.0, WARN), (0.25, GOOD)),
            decimals=1,
        ),
        stat(
            "p99",
            f"job:tillgate_redeem_duration_seconds:p99{{{JOB}}}",
            "s",
            text="Receipt to durable answer.",
            limits=((0.05, WARN), (0.25, BAD)),
            decimals=1,
        ),
        stat(
            "Gateways ready",
            f"job:tillgate_ready:sum{{{JOB}}}",
            "none",
            text="Workers that answer scans now.",
            base=BAD,
            limits=((1, GOOD),),
        ),
        stat(
            "Partitions halted",
            f'sum(tillgate_partitions{{{JOB},state="halted"}}) or vector(0)',
            "none",
            text="They answer nobody until an operator decides.",
            limits=((1, BAD),),
        ),
        stat(
            "Invariants violated",
            f"sum(tillgate_invariant_violations_total{{{JOB}}})",
            "none",
            text="Must stay 0: accepted twice, id reused, chain broken.",
            limits=((1, BAD),),
        ),
        plot(
            "Outcomes",
            "reqps",
            (rate("tillgate_redeem_requests_total", "outcome"), "{{outcome}}"),
            stack=True,
            width=12,
            text="A refusal is a success of the service; unresolved is not.",
        ),
        plot(
            "How long an answer takes",
            "s",
            (quantile(0.5, "tillgate_redeem_duration_seconds"), "p50"),
            (quantile(0.99, "tillgate_redeem_duration_seconds"), "p99"),
            (quantile(0.999, "tillgate_redeem_duration_seconds"), "p99.9"),
            line=0.25,
            width=12,
            text="The dashed line is the objective of 99.9 %.",
        ),
        plot(
            "Why refused",
            "reqps",
            (rate("tillgate_redeem_requests_total", "reason", 'outcome="refused"'), "{{reason}}"),
            stack=True,
        ),
        plot("Terminals connected", "none", (f"sum(job_store:tillgate_terminals_connected:sum{{{JOB}}})", "terminals")),
        plot(
            "Capacity in use",
            "percentunit",
            (
                (
                    f"sum by (job) (job:tillgate_redeem_requests:rate5m{{{JOB}}}) "
                    f"/ on (job) job:tillgate_capacity_redeem_per_second:sum{{{JOB}}}"
                ),
                "of the certified capacity",
            ),
            line=0.7,
            text="Empty where metrics.capacity_redeem_per_second is not set.",
        ),
    ]
    return board("tillgate-overview", "Tillgate: overview", "Is it well, and how much is going on?", panels)


def redeem() -> Json:
    by_door = 'transport=~"$transport"'
    panels = [
        plot("Rate by door", "reqps", (rate("tillgate_redeem_requests_total", "transport", by_door), "{{transport}}")),
        plot(
            "Unresolved",
            "percentunit",
            (
                (
                    f"{rate('tillgate_redeem_requests_total', '', UNRESOLVED)} "
                    f"/ {rate('tillgate_redeem_requests_total')}"
                ),
                "share",
            ),
            line=0.0005,
            text="Scans that were told to ask again. The dashed line is the budget, if it lasted.",
        ),
        plot(
            "Budget burn",
            "none",
            (f"job:tillgate_redeem_unresolved:ratio_rate1h{{{JOB}}} / 0.0005", "1 h"),
            (f"job:tillgate_redeem_unresolved:ratio_rate6h{{{JOB}}} / 0.0005", "6 h"),
            text="1 spends the budget exactly in the campaign's window.",
        ),
        heat(
            "How long answers take",
            "tillgate_redeem_duration_seconds",
            "From receipt to a durable answer.",
            where=by_door,
        ),
        plot(
            "By outcome, p99",
            "s",
            (quantile(0.99, "tillgate_redeem_duration_seconds", "outcome", by_door), "{{outcome}}"),
            width=12,
            line=0.05,
        ),
        plot(
            "Refusals by reason",
            "reqps",
            (rate("tillgate_redeem_requests_total", "reason", f'outcome="refused",{by_door}'), "{{reason}}"),
            stack=True,
            width=12,
        ),
        plot(
            "Reversals",
            "reqps",
            (rate("tillgate_reverse_requests_total", "reason"), "{{reason}}"),
            stack=True,
            width=12,
        ),
        plot(
            "In flight",
            "none",
            (f"sum by (op) (tillgate_requests_in_flight{{{JOB}}})", "{{op}}"),
            text="Messages not answered yet.",
        ),
        plot("Repeats answered from the log", "reqps", (rate("tillgate_idempotent_replays_total", "op"), "{{op}}")),
        plot(
            "Turned away",
            "reqps",
            (rate("tillgate_shed_requests_total", "cause"), "{{cause}}"),
            text="Because of load; each of them is asked again by its till.",
        ),
    ]
    door = {
        "name": "transport",
        "label": "Door",
        "type": "custom",
        "query": "stream,http",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return board(
        "tillgate-redeem",
        "Tillgate: redeem (rate, errors, duration)",
        "Do tills get their answers, and how soon?",
        panels,
        variables=(door,),
    )


def event_log() -> Json:
    fsync = "tillgate_event_log_fsync_duration_seconds"
    panels = [
        stat(
            "Disk free",
            f"min(tillgate_disk_free_bytes{{{JOB}}})",
            "bytes",
            text="Where the log is.",
            base=BAD,
            limits=((1 << 30, WARN), (10 << 30, GOOD)),
        ),
        stat("Log", f"max(tillgate_event_log_bytes{{{JOB}}})", "bytes", text="On disk.", base="blue"),
        stat(
            "Records a second",
            f"sum(job:tillgate_events_appended:rate5m{{{JOB}}})",
            "ops",
            text="Made durable.",
            base="blue",
        ),
        stat(
            "Commit p99",
            f"max(instance:{fsync}:p99{{{JOB}}})",
            "s",
            text="A group commit, fsync included.",
            limits=((0.1, WARN), (0.25, BAD)),
            decimals=1,
        ),
        stat(
            "Append failures",
            f"sum(tillgate_event_append_failures_total{{{JOB}}})",
            "none",
            text="Each ended the gateway before anything unwritten was answered.",
            limits=((1, BAD),),
        ),
        stat(
            "Partitions halted",
            f'sum(tillgate_partitions{{{JOB},state="halted"}}) or vector(0)',
            "none",
            text="The log's chain is broken, or older than what Valkey holds.",
            limits=((1, BAD),),
        ),
        heat("Group commits", fsync, "A disk that pauses shows as a cloud above the line."),
        plot("Commit", "s", (quantile(0.5, fsync), "p50"), (quantile(0.99, fsync), "p99"), line=0.1, width=12),
        plot(
            "Records a batch",
            "none",
            (quantile(0.5, "tillgate_event_batch_size"), "p50"),
            (quantile(0.99, "tillgate_event_batch_size"), "p99"),
            text="Grows with load: that is what makes it fast.",
        ),
        plot(
            "Batches a commit",
            "none",
            (quantile(0.5, "tillgate_event_log_commit_batches"), "p50"),
            (quantile(0.99, "tillgate_event_log_commit_batches"), "p99"),
        ),
        plot("Batch, claim to durable", "s", (quantile(0.99, "tillgate_batch_duration_seconds"), "p99")),
        plot(
            "Newest batch",
            "none",
            (f"max by (partition) (tillgate_event_log_last_sequence{{{JOB}}})", "partition {{partition}}"),
            least=None,
        ),
        plot(
            "Recoveries",
            "none",
            (
                f"sum by (branch) (increase(tillgate_partition_recoveries_total{{{JOB}}}[$__rate_interval]))",
                "{{branch}}",
            ),
            stack=True,
            text="What a recovery found: behind, ahead, forked, halted.",
        ),
        plot(
            "Bytes of log and of free disk",
            "bytes",
            (f"max(tillgate_event_log_bytes{{{JOB}}})", "log"),
            (f"min(tillgate_disk_free_bytes{{{JOB}}})", "free"),
        ),
    ]
    return board(
        "tillgate-event-log", "Tillgate: event log", "Is what we say durable, and for how long will it be?", panels
    )


def valkey() -> Json:
    op = "tillgate_valkey_op_duration_seconds"
    panels = [
        stat(
            "Valkey", f"min(tillgate_valkey_up{{{JOB}}})", "none", text="1: it answers.", base=BAD, limits=((1, GOOD),)
        ),
        stat(
            "Primary",
            f"min(tillgate_valkey_primary{{{JOB}}})",
            "none",
            text="1: it takes writes.",
            base=BAD,
            limits=((1, GOOD),),
        ),
        stat(
            "Evicted",
            f"max(tillgate_valkey_evicted_keys_total{{{JOB}}})",
            "none",
            text="Must stay 0: an evicted key is a redemption forgotten.",
            limits=((1, BAD),),
        ),
        stat(
            "Append-only file failing",
            f"max(tillgate_valkey_aof_failing{{{JOB}}})",
            "none",
            text="1: it refuses writes until its disk is mended and it is restarted.",
            limits=((1, BAD),),
        ),
        stat("Memory", f"max(tillgate_valkey_used_memory_bytes{{{JOB}}})", "bytes", text="In use.", base="blue"),
        stat(
            "Restarts",
            f"sum(tillgate_valkey_restarts_total{{{JOB}}})",
            "none",
            text="Of a private Valkey, since the gateway started.",
            limits=((1, WARN),),
        ),
        plot("Calls", "s", (quantile(0.5, op, "op"), "{{op}} p50"), (quantile(0.99, op, "op"), "{{op}} p99"), width=12),
        plot(
            "Calls a second",
            "ops",
            (rate(f"{op}_count", "op"), "{{op}}"),
            width=12,
            text="One call carries a whole batch.",
        ),
        plot("Errors", "ops", (rate("tillgate_valkey_errors_total", "op, cause"), "{{op}}: {{cause}}")),
        plot(
            "Memory and its limit",
            "bytes",
            (f"max(tillgate_valkey_used_memory_bytes{{{JOB}}})", "used"),
            (f"max(tillgate_valkey_memory_limit_bytes{{{JOB}}}) > 0", "limit"),
        ),
        plot("Append-only file", "bytes", (f"max(tillgate_valkey_aof_bytes{{{JOB}}})", "size")),
    ]
    return board(
        "tillgate-valkey", "Tillgate: claims and Valkey", "Does the arbiter answer, and is it to be believed?", panels
    )

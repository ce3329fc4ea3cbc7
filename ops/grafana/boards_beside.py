"""The boards beside the service: projections, stores and terminals, campaigns, runtime, load test."""

from panels import BAD, GOOD, JOB, WARN, Json, board, plot, quantile, rate, stat, table, variable

DAMAGED = "tillgate_terminal_scanner_checksum_errors_total"


def projections() -> Json:
    lag = "tillgate_projection_lag_seconds"
    panels = [
        stat("Furthest behind", f"max({lag}{{{JOB}}})", "s", text="Of all projections.", limits=((5, WARN), (30, BAD))),
        stat(
            "Freshness budget left",
            f"job:tillgate_projection_fresh:budget_left{{{JOB}}}",
            "percentunit",
            text="Minutes in which a projection may be more than 5 s behind.",
            base=BAD,
            limits=((0.0, WARN), (0.25, GOOD)),
            decimals=1,
        ),
        stat(
            "Rebuilding",
            f"min(tillgate_projection_rebuild_progress_ratio{{{JOB}}})",
            "percentunit",
            text="1: nothing is being rebuilt.",
            base=WARN,
            limits=((1, GOOD),),
        ),
        stat(
            "Differences",
            f"sum(tillgate_reconciliation_difference_batches{{{JOB}}})",
            "none",
            text="Batches in which Valkey and the log disagree.",
            limits=((1, BAD),),
        ),
        plot(
            "How far behind the log", "s", (f"max by (projection) ({lag}{{{JOB}}})", "{{projection}}"), line=5, width=12
        ),
        plot(
            "Position",
            "none",
            (
                f"max by (projection, partition) (tillgate_projection_last_sequence{{{JOB}}})",
                "{{projection}} {{partition}}",
            ),
            (f"max by (partition) (tillgate_event_log_last_sequence{{{JOB}}})", "log {{partition}}"),
            width=12,
            least=None,
        ),
    ]
    return board("tillgate-projections", "Tillgate: projections", "Is what people read up to date?", panels)


def stores() -> Json:
    asked = "job_store:tillgate_redeem_store_requests:rate5m"
    where = f'{JOB},store=~"$store"'
    panels = [
        table(
            "Stores",
            "Rates over five minutes; gone quiet means no till is connected.",
            ("terminals", "none", f"sum by (store) (job_store:tillgate_terminals_connected:sum{{{where}}})"),
            ("accepted/s", "reqps", f'sum by (store) ({asked}{{{where},outcome="accepted"}})'),
            ("refused/s", "reqps", f'sum by (store) ({asked}{{{where},outcome="refused"}})'),
            (
                "refused",
                "percentunit",
                f'sum by (store) ({asked}{{{where},outcome="refused"}}) / sum by (store) ({asked}{{{where}}})',
            ),
            by="store",
        ),
        plot(
            "Accepted by store",
            "reqps",
            (f'sum by (store) ({asked}{{{where},outcome="accepted"}})', "{{store}}"),
            width=12,
            stack=True,
        ),
        plot(
            "Terminals by store",
            "none",
            (f"sum by (store) (job_store:tillgate_terminals_connected:sum{{{where}}})", "{{store}}"),
            width=12,
        ),
        plot(
            "Share refused",
            "percentunit",
            (
                f'sum by (store) ({asked}{{{where},outcome="refused"}}) / sum by (store) ({asked}{{{where}}})',
                "{{store}}",
            ),
            line=0.05,
            width=12,
            text="Fraud, or a till that retries without its key.",
        ),
        plot(
            "Oldest question of a till",
            "s",
            ("max(tillgate_terminal_journal_oldest_seconds)", "oldest"),
            line=900,
            width=12,
            text="From tills that tell metrics: how long a scan has waited for its answer.",
        ),
        plot(
            "Scanners lost",
            "none",
            ("sum by (instance, scanner) (1 - tillgate_terminal_scanner_up) > 0", "{{instance}} {{scanner}}"),
        ),
        plot(
            "Damaged reads",
            "reqps",
            (
                f"sum by (instance, scanner) (rate({DAMAGED}[$__rate_interval])) > 0",
                "{{instance}} {{scanner}}",
            ),
            text="A cable, or a port setting.",
        ),
        plot("Tills without a gateway", "none", ("count(tillgate_terminal_uplink_up == 0) or vector(0)", "tills")),
    ]
    by_name = variable("store", "label_values(tillgate_redeem_store_requests_total, store)", all_of_it=True)
    return board(
        "tillgate-stores", "Tillgate: stores and terminals", "Which store needs a call?", panels, variables=(by_name,)
    )


def campaign() -> Json:
    where = f'{JOB},campaign=~"$campaign"'
    vouchers = "job_campaign:tillgate_vouchers:max"
    panels = [
        table(
            "Campaigns",
            "Counted from the log; every voucher is in one state.",
            ("issued", "none", f'sum by (campaign) ({vouchers}{{{where},state="issued"}})'),
            ("redeemed", "none", f'sum by (campaign) ({vouchers}{{{where},state="redeemed"}})'),
            ("reversed", "none", f'sum by (campaign) ({vouchers}{{{where},state="reversed"}})'),
            ("voided", "none", f'sum by (campaign) ({vouchers}{{{where},state="voided"}})'),
            by="campaign",
        ),
        plot(
            "Redeemed so far",
            "none",
            (f'sum by (campaign) ({vouchers}{{{where},state="redeemed"}})', "{{campaign}}"),
            width=12,
        ),
        plot(
            "Redeemed an hour",
            "none",
            (f'sum by (campaign) (delta({vouchers}{{{where},state="redeemed"}}[1h]))', "{{campaign}}"),
            width=12,
            least=None,
        ),
        plot(
            "Share of what was issued",
            "percentunit",
            (
                (
                    f'sum by (campaign) ({vouchers}{{{where},state="redeemed"}}) '
                    f'/ sum by (campaign) ({vouchers}{{{where},state="issued"}})'
                ),
                "{{campaign}}",
            ),
            width=12,
        ),
        plot(
            "Reversed and voided",
            "none",
            (f'sum by (campaign) ({vouchers}{{{where},state="reversed"}})', "{{campaign}} reversed"),
            (f'sum by (campaign) ({vouchers}{{{where},state="voided"}})', "{{campaign}} voided"),
            width=12,
        ),
    ]
    by_name = variable("campaign", "label_values(tillgate_vouchers, campaign)", all_of_it=True)
    return board(
        "tillgate-campaign", "Tillgate: campaigns", "How does it go?", panels, variables=(by_name,), since="now-7d"
    )


def runtime() -> Json:
    lag = "tillgate_event_loop_lag_seconds"
    panels = [
        plot(
            "CPU by worker",
            "percentunit",
            (f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}"),
            line=0.8,
            text="Of one core: a worker cannot use more.",
        ),
        plot(
            "How late the loop is",
            "s",
            (quantile(0.5, lag, "instance"), "{{instance}} p50"),
            (quantile(0.99, lag, "instance"), "{{instance}} p99"),
            line=0.1,
        ),
        plot("Memory", "bytes", (f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}")),
        plot(
            "Open files",
            "none",
            (f"process_open_fds{{{JOB}}}", "{{instance}}"),
            (f"min(process_max_fds{{{JOB}}})", "limit"),
            log=True,
        ),
        plot(
            "Collections",
            "ops",
            (
                f"sum by (instance, generation) (rate(python_gc_collections_total{{{JOB}}}[$__rate_interval]))",
                "{{instance}} gen {{generation}}",
            ),
        ),
        plot(
            "Clock against its neighbours",
            "s",
            (f"tillgate_clock_offset_seconds{{{JOB}}}", "{{instance}} {{against}}"),
            least=None,
            text="An expiry is only as right as the clock.",
        ),
        table(
            "Workers",
            "What runs where.",
            ("up", "none", f"sum by (instance) (up{{{JOB}}})"),
            ("ready", "none", f"sum by (instance) (tillgate_ready{{{JOB}}})"),
            ("draining", "none", f"sum by (instance) (tillgate_draining{{{JOB}}})"),
            ("running for", "s", f"time() - max by (instance) (process_start_time_seconds{{{JOB}}})"),
            ("failed ends", "none", f"sum by (instance) (tillgate_failed_ends_total{{{JOB}}})"),
            by="instance",
        ),
    ]
    return board("tillgate-runtime", "Tillgate: runtime", "What is a worker short of?", panels)


def load_test() -> Json:
    panels = [
        plot(
            "Verdicts a second",
            "reqps",
            (rate("tillgate_redeem_requests_total", "outcome"), "{{outcome}}"),
            stack=True,
            width=12,
            text="What the gateway answered; the load report says what was offered.",
        ),
        plot(
            "Tails",
            "s",
            (quantile(0.5, "tillgate_redeem_duration_seconds"), "p50"),
            (quantile(0.9, "tillgate_redeem_duration_seconds"), "p90"),
            (quantile(0.99, "tillgate_redeem_duration_seconds"), "p99"),
            (quantile(0.999, "tillgate_redeem_duration_seconds"), "p99.9"),
            width=12,
            log=True,
        ),
        plot(
            "CPU a verdict",
            "s",
            (
                (
                    f"sum(rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])) "
                    f"/ {rate('tillgate_redeem_requests_total')}"
                ),
                "gateway",
            ),
            log=True,
            text="Flat while there is room; when it grows, something other than verdicts is being paid.",
        ),
        plot(
            "Records a batch",
            "none",
            (quantile(0.5, "tillgate_event_batch_size"), "p50"),
            (quantile(0.99, "tillgate_event_batch_size"), "p99"),
        ),
        plot("Loop lateness p99", "s", (quantile(0.99, "tillgate_event_loop_lag_seconds", "instance"), "{{instance}}")),
        plot("Commit p99", "s", (quantile(0.99, "tillgate_event_log_fsync_duration_seconds"), "p99")),
        plot("Valkey call p99", "s", (quantile(0.99, "tillgate_valkey_op_duration_seconds", "op"), "{{op}}")),
        plot(
            "In flight",
            "none",
            (f"sum(tillgate_requests_in_flight{{{JOB}}})", "messages"),
            text="Grows without end when more is offered than can be answered.",
        ),
        plot("Turned away", "reqps", (rate("tillgate_shed_requests_total", "cause"), "{{cause}}")),
    ]
    return board(
        "tillgate-load-test", "Tillgate: load test", "Where is the knee, and what bends there?", panels, since="now-30m"
    )

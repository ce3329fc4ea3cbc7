"""Tillgate under load from Locust: `locust -f loadtest/locustfile.py --headless --processes 2 --scenario smoke`.

The scenario decides how long, how fast and what; Locust's users, spawn rate and run time have no say in it. Without
`--host` a gateway of its own is started and filled; with it, `--admin-token` is needed too. Without `--headless` the
same run is started from Locust's web page. Arrivals are an open model: each worker has one user, which walks its part
of the schedule. `--model closed` asks with users that wait for their answers instead, to show what such a test hides.

Exit codes: 0 every mark was met, 1 failed, 2 an impossible scenario, 3 void (a generator itself was late), 4 a mark was
missed, 5 an invariant does not hold (with `--verify`).
"""

from functools import partial
from typing import Any, TypeVar

import gevent
import msgspec
from gevent.event import Event
from locust import FastHttpUser, LoadTestShape, User, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.rpc import Message
from locust.runners import STATE_INIT, MasterRunner, WorkerRunner

from loadtest.locust_conduct import Master
from loadtest.locust_rules import OWN_GATEWAY
from loadtest.locust_share import END, READY, REPORTED, REST, SHARE, START, Ready, Report, Share, Start
from loadtest.locust_worker import WorkerRun

CONNECTIONS_MAX = 20_000  # of tills over HTTP, a worker: never less than may be under way, or they would queue unseen
TAGS = "locust_tag_set"  # where Locust's `tag` keeps them
T = TypeVar("T")


def add_options(parser: LocustArgumentParser) -> None:
    """What a run needs to know beside Locust's own options."""
    parser.add_argument("--scenario", default="smoke", env_var="TILLGATE_SCENARIO", help="one of Tillgate's or a file")
    parser.add_argument("--model", choices=("open", "closed"), default="open", help="closed: users wait for answers")
    parser.add_argument("--closed-users", type=int, default=20, help="how many wait, in a closed model")
    parser.add_argument("--rate", type=float, default=None, help="the highest rate, others in proportion")
    parser.add_argument("--seconds", type=float, default=None, help="the whole timeline in this time")
    parser.add_argument("--terminals", type=int, default=None, help="how many tills")
    parser.add_argument("--seed", type=int, default=None, help="instead of the scenario's")
    parser.add_argument("--verify", action="store_true", help="afterwards: the ten invariants")
    parser.add_argument("--run-directory", default="", help="where the run is written; empty: runs/ and its name")
    parser.add_argument(
        "--admin-token",
        default="",
        env_var="TILLGATE_ADMIN_TOKEN",
        is_secret=True,
        help="of the gateway that --host names; it enrols tills and issues vouchers",
    )


class _Here:
    """What this process is part of: master, worker, or both in one."""

    master: Master | None = None
    run: WorkerRun | None = None


def join_in(environment: Environment, **_: Any) -> None:
    """Learn whether this process is master, worker, or both."""
    runner = environment.runner
    assert runner is not None, "Locust has made it"
    if not isinstance(runner, WorkerRunner):
        master = _Here.master = Master(environment)
        runner.register_message(READY, lambda msg, **_: master.ready(_told(msg, Ready)))
        runner.register_message(REST, lambda msg, **_: master.add(_told(msg, Report), last=True))
        environment.events.worker_report.add_listener(partial(_take_report, master))
        environment.events.test_start.add_listener(lambda **_: master.begin())
        environment.events.test_stop.add_listener(lambda **_: master.end())
        environment.events.quitting.add_listener(lambda **_: master.end())
    if not isinstance(runner, MasterRunner):
        runner.register_message(SHARE, lambda msg, **_: _take_share(environment, _told(msg, Share)))
        runner.register_message(START, lambda msg, **_: _run().start(_told(msg, Start).starts_ms))
        runner.register_message(END, _finish)
        environment.events.report_to_master.add_listener(_report)
        environment.events.test_stop.add_listener(_finish)


def _told(message: Message, kind: type[T]) -> T:
    return msgspec.msgpack.decode(message.data["told"], type=kind)


def _run() -> WorkerRun:
    assert _Here.run is not None, "the master shares a run out before anything else"
    return _Here.run


def _take_share(environment: Environment, share: Share) -> None:
    _Here.run = WorkerRun(environment, share)
    gevent.spawn(_Here.run.prepare)


def _finish(**_: Any) -> None:
    if _Here.run is not None:
        _Here.run.finish()


def _report(**told: Any) -> None:
    """With Locust's own statistics, every three seconds."""
    if _Here.run is not None and (report := _Here.run.report()) is not None:
        told["data"][REPORTED] = msgspec.msgpack.encode(report)


def _take_report(master: Master, **told: Any) -> None:
    if (report := told["data"].get(REPORTED)) is not None:
        master.add(msgspec.msgpack.decode(report, type=Report))


class FollowTheScenario(LoadTestShape):
    """One user a worker from begin to end of the run; of a closed model all of its users."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """None when the run is over."""
        master = _Here.master
        assert master is not None, "only a master has a shape"
        assert self.runner is not None, "Locust starts a shape with its runner"
        if self.runner.state == STATE_INIT:
            master.expect()
        if master.is_over:
            return None
        users: type[User] = OpenTills if master.model == "open" else ClosedTills
        return master.users, master.users, [users]


class OpenTills(FastHttpUser):
    """All tills of one worker: walks its part of the schedule."""

    host = OWN_GATEWAY
    concurrency = CONNECTIONS_MAX

    @tag("redeem", "stream")
    @task
    def redeem_over_stream(self) -> None:
        self._play()

    @tag("redeem", "http")
    @task
    def redeem_over_http(self) -> None:
        self._play()

    @tag("reverse", "stream")
    @task
    def reverse_over_stream(self) -> None:
        self._play()

    @tag("reverse", "http")
    @task
    def reverse_over_http(self) -> None:
        self._play()

    @tag("lookup", "http")
    @task
    def look_up(self) -> None:
        self._play()

    def _play(self) -> None:
        """Whichever task it was: all that tags have left over are played at once, as the scenario mixes them."""
        if _Here.run is not None:
            _Here.run.play(self.client, {frozenset(getattr(left, TAGS)) for left in self.tasks})
        Event().wait()  # until Locust stops this user; the run itself is over, or never began


class ClosedTills(FastHttpUser):
    """One till that waits for its answer, and then for the next shopper."""

    host = OWN_GATEWAY
    concurrency = 1

    def wait_time(self) -> float:
        """Seconds between an answer and the next scan."""
        return 0.0 if _Here.run is None else _Here.run.pause_s

    @task
    def ask(self) -> None:
        if _Here.run is None or not _Here.run.ask_one(self.client):
            Event().wait()


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(join_in)

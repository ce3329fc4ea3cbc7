"""Pages of load reports: pictures that are right, names that are only ever text, nothing fetched; the command."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from load_runs import Story, write_run

from gateway.cli import run as tillgate
from loadtest.evidence import Judgement
from loadtest.report_files import html, read_whole
from loadtest.report_model import report
from loadtest.report_svg import Plot, area, axes, between, decades, line, linear, nines, times
from loadtest.report_text import markdown
from loadtest.report_times import Reading
from loadtest.report_words import ms, number, percent, verdict_of
from loadtest.run_files import Fault, Mark, RunUnreadable

HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=alert(1)>\" onmouseover=\"x` [a](http://e.vil)"
)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """A minute at 40 a second, with three seconds in which nothing is answered."""
    story = Story(rate=lambda _: 40, capacity=400, freezes=[(30, 33)], faults=[Fault("freeze", 30, 33)])
    return read_whole(write_run(tmp_path_factory.mktemp("runs") / "frozen", story))


@pytest.fixture(scope="module")
def hostile(frozen: Reading) -> Reading:
    run = frozen.run
    scenario = {**run.scenario, "title": HOSTILE, "name": HOSTILE, "shows": HOSTILE, HOSTILE: HOSTILE}
    environment = msgspec.structs.replace(run.environment, cpu=HOSTILE, commit=HOSTILE, versions={HOSTILE: HOSTILE})
    changed = msgspec.structs.replace(
        run,
        scenario=scenario,
        environment=environment,
        faults=[Fault(HOSTILE, 10, 12)],
        marks=[Mark(HOSTILE, 1, 2, False)],
        void=[HOSTILE],
        outcomes={HOSTILE: 5, **run.outcomes},
    )
    samples = [msgspec.structs.replace(one, process=HOSTILE) for one in frozen.samples]
    judged = [Judgement("L1", HOSTILE, False, {HOSTILE: 1}, 1, HOSTILE, HOSTILE)]
    return Reading(changed, frozen.times, samples, judged)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "plain", Story(rate=lambda _: 20, seconds=20))


class TestPictures:
    def test_ticks_are_round_and_reach_beyond_the_largest_value(self) -> None:
        assert [tick for tick, _ in linear(7083, number).ticks] == [0, 2000, 4000, 6000, 8000]
        assert linear(0.03, number).high >= 0.03
        assert linear(0, number).high == 1
        assert between(130, 280, number).low <= 130
        grid = decades(0.7, 4800, ms)
        assert (grid.low, grid.high) == (0.5, 5000)
        assert [word for _, word in grid.ticks if word] == ["1 ms", "10 ms", "100 ms", "1 s"]
        assert [word for _, word in times(0, 600, number, 5).ticks] == ["0", "120", "240", "360", "480", "600"]
        assert nines(5).share(1e5) == 1

    def test_lines_and_areas_break_where_there_is_no_value(self) -> None:
        plot = Plot(358, 200, linear(10, number), linear(10, number))
        points = [(0, 1.0), (1, None), (2, 3.0), (3, 4.0)]
        assert line(plot, points, "x").count("M") == 2
        assert area(plot, points, [(x, 0.0) for x, _ in points], "x").count("M") == 1
        assert line(plot, [(0, None)], "x") == ""
        assert "&lt;" in axes(Plot(358, 200, linear(1, lambda _: "<"), linear(1, number)))

    @pytest.mark.parametrize(
        ("value", "said"),
        (
            (0.0421, "0.042 ms"),
            (5, "5 ms"),
            (99.96, "100 ms"),
            (1234, "1.23 s"),
            (90_000, "1.5 min"),
            (None, "no answer"),
        ),
    )
    def test_lengths_are_said_in_the_unit_that_reads_best(self, value: float | None, said: str) -> None:
        assert ms(value) == said

    def test_a_share_is_never_rounded_to_everything(self) -> None:
        assert [percent(share) for share in (1, 0, 0.5, 0.9999, 0.99999)] == [
            "100 %",
            "0 %",
            "50.0 %",
            "99.99 %",
            "99.999 %",
        ]


class Page(HTMLParser):
    """What a browser would fetch, run or style of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


class TestPage:
    def test_hostile_names_are_only_ever_text(self, hostile: Reading) -> None:
        text = html(report(hostile))
        tags = Page(text).tags
        assert not [tag for tag, _ in tags if tag in ("img", "iframe", "object", "embed", "base", "form")]
        assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]
        scripts = [attributes for tag, attributes in tags if tag == "script"]
        assert [one for one in scripts if one.get("type") != "application/json"] == [{}]
        assert "document.title='pwned'</script>" not in text

    def test_nothing_is_fetched_and_nothing_but_its_own_style_and_script_is_allowed(self, hostile: Reading) -> None:
        text = html(report(hostile))
        tags = Page(text).tags
        assert not [
            name for _, attributes in tags for name in attributes if name in ("src", "srcset", "action", "style")
        ]
        assert {attributes["href"] for tag, attributes in tags if "href" in attributes} <= {"#baseline"}
        policy = next(a["content"] or "" for t, a in tags if t == "meta" and a.get("http-equiv"))
        assert re.fullmatch(
            r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; script-src 'sha256-[\w+/=]{44}'; "
            r"base-uri 'none'; form-action 'none'",
            policy,
        )
        own = text.replace(HOSTILE, "").replace(
            "http://www.w3.org/2000/svg", ""
        )  # a name of an element, not an address
        assert "url(" not in own
        assert "@import" not in own
        assert not re.search(r"https?://(?!e\.vil)", own)

    def test_every_chart_has_a_name_a_description_and_a_sentence(self, frozen: Reading) -> None:
        text = html(report(frozen))
        tags = Page(text).tags
        charts = [attributes for tag, attributes in tags if tag == "svg" and attributes.get("role") == "img"]
        assert len(charts) >= 16
        assert all(one.get("aria-label") for one in charts)
        assert text.count("<desc>") == len(charts)
        assert text.count("<figure") == text.count("<figcaption>")

    def test_faults_stand_on_every_axis_of_time(self, frozen: Reading) -> None:
        drawn = re.findall(r'<figure class="card" id="(\w+)".*?</figure>', html(report(frozen)), re.S)
        by_name = dict(zip(drawn, re.findall(r"<figure.*?</figure>", html(report(frozen)), re.S), strict=True))
        for name in ("rates", "waiting", "lag", "outcomes", "cpu", "memory", "loop", "fsync", "files"):
            assert by_name[name].count('class="fault"') == 2, f"{name}: for wide and narrow"

    def test_shared_cores_are_said(self, frozen: Reading) -> None:
        assert "shared the same 2 cores" in html(report(frozen))
        apart = msgspec.structs.replace(frozen.run.environment, same_machine=False)
        run = msgspec.structs.replace(frozen.run, environment=apart)
        assert "another machine" in html(report(Reading(run, frozen.times, frozen.samples, None)))

    def test_where_nobody_watched_the_server_nothing_is_said_of_its_cpu(self, frozen: Reading) -> None:
        assert "Server CPU" in html(report(frozen))
        generators = [msgspec.structs.replace(one, process="generator-0") for one in frozen.samples]
        assert "Server CPU" not in html(report(Reading(frozen.run, frozen.times, generators, None)))

    def test_hostile_names_are_no_markup_in_markdown(self, hostile: Reading) -> None:
        text = markdown(report(hostile))
        assert "<script>" not in text.replace("\\<script\\>", "")
        assert "[a](" not in text.replace("\\[a\\](", "")
        assert all(line.startswith("|") == line.endswith("|") for line in text.splitlines())


class TestCommand:
    def test_the_page_lies_beside_the_run_or_where_it_is_wanted(
        self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert tillgate(["load", "report", str(directory)]) == 0
        assert capsys.readouterr().out.strip() == str(directory / "report.html")
        assert tillgate(["load", "report", str(directory), "--html", str(tmp_path / "x.html")]) == 0
        assert (tmp_path / "x.html").read_text() == (directory / "report.html").read_text()

    def test_json_holds_what_the_page_shows(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert tillgate(["load", "report", str(directory), "--json"]) == 0
        told = msgspec.json.decode(capsys.readouterr().out)
        assert told["verdict"]["mood"] == "open"
        assert len(told["report"]["stretches"]) >= 20
        assert told["comparison"] is None

    def test_what_verify_found_is_shown(self, directory: Path, tmp_path: Path) -> None:
        judged = [Judgement(f"L{at}", "it holds", True, {"vouchers": 5}) for at in range(1, 11)]
        whole = {"holds": True, "seconds": 1.0, "invariants": judged}
        story = Story(rate=lambda _: 20, seconds=3, marks=[("p99, ms from the intended start", 5.0, 50.0)])
        verified = write_run(tmp_path / "verified", story)
        (verified / "verify.json").write_bytes(msgspec.json.encode(whole))
        assert verdict_of(report(read_whole(verified))).mood == "good"
        (verified / "verify.json").write_text("{}")
        with pytest.raises(RunUnreadable, match=r"verify\.json"):
            read_whole(verified)

    def test_a_directory_that_is_no_run_is_refused_by_the_files_name(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert tillgate(["load", "report", str(tmp_path)]) == 2
        assert "run.json" in capsys.readouterr().err

    def test_a_story_is_the_same_each_time(self, tmp_path: Path) -> None:
        story = Story(rate=lambda _: 20, seconds=3)
        one, two = (write_run(tmp_path / name, replace(story)) for name in "ab")
        assert (one / "seconds.ndjson").read_bytes() == (two / "seconds.ndjson").read_bytes()

"""Files of codes: which lines are used, what is said about the others, and request ids that make a file resumable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bulk import Line, RequestIds, Unfit, read_lines, sort_out
from gateway.codes import typed_code


def sorted_out(*lines: str, column: str = "code") -> list[Line | Unfit]:
    return list(sort_out(read_lines(lines, column)))


def test_every_line_is_one_code_commas_and_all() -> None:
    assert sorted_out("a,b\n", "\n", "  \r\n", "c d\r\n") == [Line(1, "a,b"), Line(4, "c d")]


def test_a_first_line_that_names_the_column_makes_it_csv() -> None:
    found = sorted_out("\ufeffSerial, Code ,note\n", '1,"x,1",\n', "2,y,\n", ",,\n", "3\n")
    assert found == [Line(2, "x,1"), Line(3, "y"), Unfit(5, "has no code in its column")]


def test_the_column_may_have_another_name() -> None:
    assert list(read_lines(["coupon_no,code\n", "7,x\n"], "coupon_no")) == [Line(2, "7")]


def test_line_numbers_count_lines_of_the_file_and_not_rows() -> None:
    assert [line.number for line in sorted_out("code\n", '"x\n', 'y"\n', "z\n")] == [3, 4]


def test_an_empty_file_has_no_lines() -> None:
    assert sorted_out() == []


@pytest.mark.parametrize(
    ("text", "why"),
    (
        ("T1ABC", "reserved for signed codes"),
        (typed_code(123456789012345)[:-1] + "9", "check digit"),
        ("a\x07b", "character 2"),
        ("x" * 5000, "5000 characters"),
        ("caf\udce9", "UTF-8"),
    ),
)
def test_a_code_no_till_could_redeem_is_refused_with_its_line_and_without_its_text(text: str, why: str) -> None:
    [first, unfit, last] = sorted_out("good\n", text + "\n", "also good\n")
    assert (first, last) == (Line(1, "good"), Line(3, "also good"))
    assert isinstance(unfit, Unfit)
    assert unfit.number == 2
    assert why in unfit.why
    assert text not in unfit.why


def test_a_code_that_comes_twice_is_used_once_however_it_is_written() -> None:
    typed = typed_code(5)
    grouped = " ".join(typed[at : at + 4] for at in range(0, 16, 4))
    assert sorted_out(typed + "\n", "x\n", grouped + "\n") == [
        Line(1, typed),
        Line(2, "x"),
        Unfit(3, "has the same code as line 1"),
    ]


@given(st.lists(st.text(max_size=60), max_size=20))
def test_any_text_is_sorted_out_without_an_error_and_in_order(lines: list[str]) -> None:
    numbers = [line.number for line in sorted_out(*(line + "\n" for line in lines))]
    assert numbers == sorted(set(numbers))


def test_request_ids_depend_on_file_campaign_chunk_and_text_and_on_nothing_else() -> None:
    ids = RequestIds(b"digest", "noodles")
    first = ids.of(0, "a")
    assert first == RequestIds(b"digest", "noodles").of(0, "a")
    others = {
        ids.of(1, "a"),
        ids.of(0, "b"),
        ids.of(0),
        RequestIds(b"digest2", "noodles").of(0, "a"),
        RequestIds(b"digest", "tea").of(0, "a"),
    }
    assert len(others | {first}) == 6
    assert len(first) == 32

"""The demo's plan: the same for the same seed, and one that can be played."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.demo_plan import (
    GIFT,
    GIFT_STORES,
    PHONE_CAMPAIGNS,
    PHONES,
    STORES,
    Deed,
    Plan,
    Voucher,
    as_presented,
    plan_of,
)

seeds = st.integers(0, 999_999).map(plan_of)


def redeemed_in_order(plan: Plan) -> list[Voucher]:
    steps = [step for act in plan.acts for step in act.steps]
    return [step.voucher for step in steps if "accepted" in step.expected and "reversed" not in step.expected]


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan_of(7) == plan_of(7)
    assert plan_of(7) != plan_of(8)


@settings(max_examples=10)
@given(seeds)
def test_no_voucher_is_meant_to_be_redeemed_twice(plan: Plan) -> None:
    redeemed = redeemed_in_order(plan)
    assert len(redeemed) == len(set(redeemed))


@settings(max_examples=10)
@given(seeds)
def test_every_step_is_at_tills_that_exist_and_races_at_two(plan: Plan) -> None:
    for act in plan.acts:
        for step in act.steps:
            assert len(set(step.tills)) == (2 if step.deed is Deed.SCAN_AT_BOTH else 1)
            assert all(0 <= till < len(STORES) for till in step.tills)


@settings(max_examples=10)
@given(seeds)
def test_only_the_wrong_store_is_wrong(plan: Plan) -> None:
    for act in plan.acts:
        for step in act.steps:
            here = step.voucher.campaign != GIFT or all(STORES[till] in GIFT_STORES for till in step.tills)
            assert here == (step.expected != ("not_eligible",))


@settings(max_examples=10)
@given(seeds)
def test_a_copy_is_shown_after_its_original_and_elsewhere(plan: Plan) -> None:
    where: dict[Voucher, int] = {}
    for act in plan.acts:
        for step in act.steps:
            if step.expected == ("already_redeemed",):
                assert where[step.voucher] != step.tills[0]
        where |= {step.voucher: step.tills[0] for step in act.steps if step.expected == ("accepted",)}


@settings(max_examples=10)
@given(seeds)
def test_plugs_are_pulled_in_the_middle_of_an_act(plan: Plan) -> None:
    kills = [act for act in plan.acts if act.kill]
    assert sorted(act.kill for act in kills) == ["gateway", "valkey"]
    assert all(act.scans // 5 <= act.kill_after < act.scans // 2 for act in kills)


@settings(max_examples=10)
@given(seeds)
def test_every_case_is_named_and_nothing_else(plan: Plan) -> None:
    assert set(plan.cases) == {step.case for act in plan.acts for step in act.steps} - {""}
    assert {step.deed for act in plan.acts for step in act.steps} == set(Deed)


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_what_is_presented_differs_only_where_it_is_meant_to(seed: int) -> None:
    plan = plan_of(seed)
    vouchers = {step.voucher for act in plan.acts for step in act.steps}
    codes = {voucher: "1234" if voucher.campaign not in PHONE_CAMPAIGNS else "T1ABC9" for voucher in vouchers}
    presented = as_presented(plan, codes)
    changed = {voucher for voucher, text in presented.items() if text != codes[voucher]}
    meant = (Deed.SCAN_FORGED, Deed.TYPE_WRONGLY)
    assert changed == {step.voucher for act in plan.acts for step in act.steps if step.deed in meant}
    assert all(len(presented[voucher]) == len(codes[voucher]) for voucher in changed)


def test_there_are_four_hundred_phones_with_three_vouchers() -> None:
    assert PHONES * len(PHONE_CAMPAIGNS) == 1200
    assert len(STORES) == len(set(STORES)) == 10

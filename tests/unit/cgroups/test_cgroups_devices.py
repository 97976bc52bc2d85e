# SPDX-License-Identifier: GPL-3.0-or-later
"""Device rules, applied in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups.devices import DEFAULTS, policy
from ocirt.errors import StepError
from ocirt.spec.model import DeviceRule

DENY_ALL = DeviceRule(allow=False, access="rwm")
ALLOW_ALL = DeviceRule(allow=True, access="rwm")
DEFAULT_TEXTS = {str(node): access for node, access in DEFAULTS}


def rule(allow: bool, text: str) -> DeviceRule:
    kind, numbers, access = text.split()
    major, minor = (None if n == "*" else int(n) for n in numbers.split(":"))
    return DeviceRule(allow=allow, type=kind, major=major, minor=minor, access=access)


def own(*rules: DeviceRule) -> dict[str, str]:
    """The exceptions that aren't just the defaults."""
    found = {str(g.node): g.access for g in policy(rules).exceptions}
    return {node: access for node, access in found.items() if DEFAULT_TEXTS.get(node) != access}


@pytest.mark.parametrize("rules", [(), (DENY_ALL,), (ALLOW_ALL, DENY_ALL)])
def test_without_a_rule_or_with_deny_only_there_are_the_defaults(
    rules: tuple[DeviceRule, ...],
) -> None:
    found = policy(rules)
    assert not found.allow_all
    assert {str(g.node): g.access for g in found.exceptions} == DEFAULT_TEXTS


def test_allow_all_denies_nothing() -> None:
    found = policy([DENY_ALL, ALLOW_ALL])
    assert found.denies_nothing
    assert found.pointer == "/linux/resources/devices/1"


def test_rules_keep_their_order_and_pointer() -> None:
    found = policy([DENY_ALL, rule(True, "b 8:0 rw"), rule(True, "c 4:* r")])
    assert [(str(g.node), g.access, g.pointer) for g in found.exceptions[:2]] == [
        ("b 8:0", "rw", "/linux/resources/devices/1"),
        ("c 4:*", "r", "/linux/resources/devices/2"),
    ]


def test_accesses_of_one_node_add_up() -> None:
    assert own(DENY_ALL, rule(True, "b 8:0 m"), rule(True, "b 8:0 r")) == {"b 8:0": "rm"}


def test_a_later_rule_takes_back() -> None:
    allowed = (DENY_ALL, rule(True, "b 8:0 rw"), rule(True, "b 8:1 rw"))
    assert own(*allowed, rule(False, "b 8:0 w")) == {"b 8:0": "r", "b 8:1": "rw"}
    assert own(*allowed, rule(False, "b 8:* rwm")) == {}


def test_a_part_of_a_wider_rule_cant_be_taken_back() -> None:
    with pytest.raises(StepError, match=r"devices/2\]: b 8:0 w is a part of .* b 8:\* rw"):
        policy([DENY_ALL, rule(True, "b 8:* rw"), rule(False, "b 8:0 w")])


def test_another_access_than_the_wider_rules_is_no_part_of_it() -> None:
    assert own(DENY_ALL, rule(True, "b 8:* r"), rule(False, "b 8:0 w")) == {"b 8:*": "r"}


def test_after_allow_all_what_is_denied_stays_denied() -> None:
    found = policy([ALLOW_ALL, rule(False, "c 1:3 w")])
    assert found.allow_all
    assert [(str(g.node), g.access) for g in found.exceptions] == [("c 1:3", "w")]
    assert not found.denies_nothing


def test_type_a_with_less_than_everything_means_both_kinds() -> None:
    """The kernel would take "a 8:0 r" for everything."""
    both = DeviceRule(allow=True, type="a", major=8, minor=0, access="r")
    assert own(DENY_ALL, both) == {"c 8:0": "r", "b 8:0": "r"}
    assert not policy([DENY_ALL, both]).allow_all


def test_minus_one_is_any_number() -> None:
    wild = DeviceRule(allow=True, type="a", major=-1, minor=-1, access="rwm")
    assert policy([DENY_ALL, wild]).denies_nothing


@pytest.mark.parametrize("access", [None, "", "x", "rwx"])
def test_a_strange_access_is_refused(access: str | None) -> None:
    with pytest.raises(StepError, match="devices/0"):
        policy([DeviceRule(allow=True, type="c", access=access)])


def test_a_strange_type_is_refused() -> None:
    with pytest.raises(StepError, match="type 'p'"):
        policy([DeviceRule(allow=True, type="p", access="r")])


numbers = st.one_of(st.none(), st.integers(200, 202))
rules_strategy = st.lists(
    st.builds(
        DeviceRule,
        allow=st.booleans(),
        type=st.sampled_from(["a", "b", "c"]),
        major=numbers,
        minor=numbers,
        access=st.sampled_from(["r", "w", "m", "rw", "rwm"]),
    ),
    max_size=6,
)


@given(rules_strategy)
def test_the_policy_says_what_the_rules_one_by_one_say(rules: list[DeviceRule]) -> None:
    try:
        found = policy(rules)
    except StepError:
        return
    for kind in "bc":
        for major in range(200, 204):
            for minor in range(200, 204):
                # Creating is left out: the defaults allow it.
                for access in "rw":
                    wanted = _one_by_one(rules, kind, major, minor, access)
                    excepted = any(
                        g.node.type == kind
                        and g.node.major in (None, major)
                        and g.node.minor in (None, minor)
                        and access in g.access
                        for g in found.exceptions
                    )
                    assert (found.allow_all != excepted) is wanted


def _one_by_one(rules: list[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    allowed = False
    for r in rules:
        if (
            r.type in ("a", kind)
            and r.major in (None, major)
            and r.minor in (None, minor)
            and access in (r.access or "")
        ):
            allowed = r.allow
    return allowed

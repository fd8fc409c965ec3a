"""What users may do: the longest glob decides, then the policy for administrators."""

from __future__ import annotations

import pytest

from zotctl.auth.policy import AccessRules
from zotctl.auth.users import ANONYMOUS
from zotctl.config import AccessControl, AccessPolicy, MetricsAccess, RepositoryAccess, UserGroup
from zotctl.errors import NameInvalid

READ, ALL = frozenset({"read"}), frozenset({"read", "create", "update", "delete"})


def rules(*repositories: RepositoryAccess, admin: AccessPolicy | None = None, login: bool = True) -> AccessRules:
    groups = (UserGroup("devs", frozenset({"ann", "bob"})),)
    access = AccessControl(repositories, admin, groups, MetricsAccess(frozenset({"ann"})))
    return AccessRules(access, login_possible=login)


def policy(*users: str, groups: tuple[str, ...] = (), actions: frozenset[str] = READ) -> AccessPolicy:
    return AccessPolicy(frozenset(users), frozenset(groups), actions)


def test_without_rules_a_login_decides() -> None:
    closed, without_login = (AccessRules(None, login_possible=possible) for possible in (True, False))
    for action in sorted(ALL):
        assert closed.allows(closed.user("ann"), action, "a")
        assert not closed.allows(ANONYMOUS, action, "a")
        assert without_login.allows(ANONYMOUS, action, "a")
    assert not closed.allows(closed.user("ann"), "detectManifestCollision", "a")
    assert not without_login.allows(ANONYMOUS, "detectManifestCollision", "a")
    assert (closed.admits_anonymous, without_login.admits_anonymous) == (False, True)
    assert closed.allows_metrics(closed.user("ann")) and not closed.allows_metrics(ANONYMOUS)
    assert without_login.allows_metrics(ANONYMOUS)


def test_an_empty_table_allows_nothing() -> None:
    none = AccessRules(AccessControl(), login_possible=True)
    assert not any(none.allows(none.user("ann"), action, "a") for action in ALL)
    assert not none.allows_metrics(none.user("ann"))
    assert not none.admits_anonymous


def test_the_longest_glob_decides_alone() -> None:
    found = rules(
        RepositoryAccess("**", (policy("ann", actions=ALL),)),
        RepositoryAccess("team/**", (policy("bob"),)),
        RepositoryAccess("team/app", default_policy=frozenset({"create"})),
    )
    ann, bob = found.user("ann"), found.user("bob")
    assert found.allows(ann, "delete", "other/app")
    assert not found.allows(ann, "read", "team/tool")
    assert found.allows(bob, "read", "team/tool") and not found.allows(bob, "create", "team/tool")
    assert not found.allows(bob, "read", "team/app") and found.allows(bob, "create", "team/app")
    assert found.allows(bob, "read", "team"), "X/** matches X"


def test_of_globs_of_equal_length_each_has_to_allow_it() -> None:
    one, other = RepositoryAccess("team/*", default_policy=READ), RepositoryAccess("*/tool", default_policy=ALL)
    for found in (rules(one, other), rules(other, one)):
        assert found.allows(found.user("ann"), "read", "team/tool")
        assert not found.allows(found.user("ann"), "create", "team/tool")


@pytest.mark.parametrize(
    ("name", "matched"), [("a", True), ("a/b", False), ("b", False), ("ab", True)], ids=lambda v: str(v)
)
def test_a_star_stays_within_a_component(name: str, matched: bool) -> None:
    found = rules(RepositoryAccess("a*", default_policy=READ))
    assert found.allows(found.user("ann"), "read", name) is matched


def test_groups_add_to_users() -> None:
    found = rules(RepositoryAccess("**", (policy("carl"), policy(groups=("devs",), actions=frozenset({"create"})))))
    assert found.user("ann").groups == {"devs"} and found.user("carl").groups == frozenset()
    assert found.allows(found.user("ann"), "create", "x") and not found.allows(found.user("ann"), "read", "x")
    assert found.allows(found.user("carl"), "read", "x") and not found.allows(found.user("carl"), "create", "x")


def test_default_is_for_users_and_anonymous_for_the_others() -> None:
    found = rules(
        RepositoryAccess("a", default_policy=READ), RepositoryAccess("b", anonymous_policy=frozenset({"read"}))
    )
    assert found.allows(found.user("zoe"), "read", "a") and not found.allows(ANONYMOUS, "read", "a")
    assert found.allows(ANONYMOUS, "read", "b") and not found.allows(found.user("zoe"), "read", "b")
    assert found.admits_anonymous and found.has_users_beside_anonymous


def test_administrators_come_last_and_only_with_their_actions() -> None:
    admin = policy("root", groups=("devs",), actions=frozenset({"read", "delete"}))
    found = rules(RepositoryAccess("**", default_policy=frozenset({"create"})), admin=admin)
    for name in ("root", "ann"):
        user = found.user(name)
        assert found.allows(user, "delete", "x") and found.allows(user, "create", "x")
        assert not found.allows(user, "update", "x")
    assert not found.allows(found.user("zoe"), "delete", "x")
    assert not found.allows(ANONYMOUS, "delete", "x")


def test_metrics_have_their_own_users() -> None:
    found = rules(RepositoryAccess("**", default_policy=ALL))
    assert found.allows_metrics(found.user("ann"))
    assert not found.allows_metrics(found.user("bob")) and not found.allows_metrics(ANONYMOUS)
    other = AccessControl(metrics=MetricsAccess(anonymous_policy=ALL - READ))
    assert not AccessRules(other, login_possible=True).allows_metrics(ANONYMOUS)
    public = AccessRules(AccessControl(metrics=MetricsAccess(anonymous_policy=READ)), login_possible=True)
    assert public.allows_metrics(ANONYMOUS) and not public.allows_metrics(public.user("ann"))


@pytest.mark.parametrize("name", ["a/" * 3000 + "a", "", "../a", "A", "a//b", "a%2Fb", "a" * 256])
def test_what_is_no_name_is_not_matched(name: str) -> None:
    """A glob may take seconds for thousands of characters, and what it said would be remembered with them."""
    found = rules(RepositoryAccess("**", default_policy=ALL))
    with pytest.raises(NameInvalid):
        found.allows(found.user("ann"), "read", name)
    assert found._longest_matches.cache_info().currsize == 0

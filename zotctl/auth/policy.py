"""What a user may do: zot's access control.

Of the globs that match a repository the longest decides, by its policies for users and groups, its default policy
for users, and its anonymous policy for clients without a login. What it does not allow the policy for administrators
may. Anything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from zotctl.auth.users import User
from zotctl.config import AccessControl, AccessPolicy, RepositoryAccess
from zotctl.config.globs import matches
from zotctl.oci.reference import parse_name

REMEMBERED_REPOSITORIES = 10_000


class AccessRules:
    """The rules of one configuration. `None`: users who are logged in may do everything, others nothing.

    Thread-safe; it never changes.
    """

    def __init__(self, access: AccessControl | None, *, login_possible: bool) -> None:
        self._access = access
        self.is_open = access is None and not login_possible
        """Every client may do everything."""
        self._groups = {group.name: group.users for group in access.groups} if access is not None else {}
        self._longest_matches = lru_cache(REMEMBERED_REPOSITORIES)(self._find_longest_matches)

    def user(self, name: str) -> User:
        """The user of this name, with the groups that have it as a member."""
        return User(name, frozenset(group for group, members in self._groups.items() if name in members))

    def allows(self, user: User, action: str, repository: str) -> bool:
        """Whether `user` may do `action`, one of zot's words, in `repository`. It looks at no storage.

        Raises NameInvalid for what no repository may be called.
        """
        if self._access is None:
            return (self.is_open or not user.is_anonymous) and action != "detectManifestCollision"
        longest = self._longest_matches(repository)
        if longest and all(_permits(rules, user, action) for rules in longest):
            return True
        admin = self._access.admin_policy
        return admin is not None and _applies(admin, user) and action in admin.actions

    def allows_metrics(self, user: User) -> bool:
        """Whether `user` may read the metrics."""
        if self._access is None:
            return self.is_open or not user.is_anonymous
        metrics = self._access.metrics
        return "read" in metrics.anonymous_policy if user.is_anonymous else user.name in metrics.users

    @property
    def admits_anonymous(self) -> bool:
        """Whether a client without a login may do anything in any repository."""
        return self.is_open or any(rules.anonymous_policy for rules in self._repositories)

    @property
    def has_users_beside_anonymous(self) -> bool:
        """Whether a login can allow more than clients without one may do."""
        return self._access is not None and (
            self._access.admin_policy is not None
            or any(rules.default_policy or rules.policies for rules in self._repositories)
        )

    @property
    def _repositories(self) -> Iterable[RepositoryAccess]:
        return self._access.repositories if self._access is not None else ()

    def _find_longest_matches(self, repository: str) -> list[RepositoryAccess]:
        """Nearly always one. Of globs of equal length zot takes any; here each of them has to allow it.

        What is no name raises NameInvalid and is not remembered: a glob could take seconds for it.
        """
        parse_name(repository)
        found = [rules for rules in self._repositories if matches(repository, [rules.pattern])]
        longest = max((len(rules.pattern.encode()) for rules in found), default=0)
        return [rules for rules in found if len(rules.pattern.encode()) == longest]


def _permits(rules: RepositoryAccess, user: User, action: str) -> bool:
    if user.is_anonymous:
        return action in rules.anonymous_policy
    return action in rules.default_policy or any(
        action in policy.actions and _applies(policy, user) for policy in rules.policies
    )


def _applies(policy: AccessPolicy, user: User) -> bool:
    return user.name in policy.users or not policy.groups.isdisjoint(user.groups)

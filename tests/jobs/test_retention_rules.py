"""What a policy decides, on marks and a history made by hand: each condition of `jobs.retention` by itself."""

from __future__ import annotations

import json

import pytest

from tests import images
from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.jobs.reachable import Attachments, Reachable
from zotctl.jobs.retention import Rules, decide, foreign_untagged
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import CONTAINERD_NAME, OLAREG_SUBJECT, REF_NAME
from zotctl.storage.facts import ManifestFacts, facts_of
from zotctl.storage.graph import reach
from zotctl.storage.history import Timeline
from zotctl.storage.index import parse_index
from zotctl.storage.references import Reference

NOW, DELAY, HOUR = 1_800_000_000.0, 100.0, 3600.0
ALL = ("**",)


class Rows:
    """An index.json in the making, and what is remembered of it."""

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []
        self._facts: dict[str, ManifestFacts] = {}
        self.past = Timeline()

    def add(
        self, body: bytes, media_type: str, names: list[dict[str, str]], pushed: float | None,
        algorithm: str = "sha256",
    ) -> Digest:  # fmt: skip
        """A row for each name, or one without. `pushed`: so many seconds ago; None: not here."""
        manifest = check_manifest(body, media_type, algorithm=algorithm)
        row = images.descriptor(body, media_type) | {"digest": str(manifest.digest)}
        self._rows += [row | {"annotations": annotations} for annotations in names] or [row]
        self._facts[manifest.digest] = facts_of(manifest)
        if pushed is not None:
            self.past.here.add(manifest.digest)
            self.past.pushed[manifest.digest] = NOW - pushed
            self.past.tagged.update({one[REF_NAME]: NOW - pushed for one in names if REF_NAME in one})
        return manifest.digest

    def image(
        self, *tags: str, seed: str = "", pushed: float | None = 10 * HOUR, pulled: float | None = None,
        subject: Digest | None = None,
    ) -> Digest:  # fmt: skip
        names = [{REF_NAME: tag} for tag in tags]
        digest = self.add(images.image(seed or "".join(tags), subject=subject).manifest, OCI_MANIFEST, names, pushed)
        if pulled is not None:
            self.past.pulled[digest] = NOW - pulled
        return digest

    def named(self, annotations: dict[str, str]) -> Digest:
        return self.add(images.image(str(annotations)).manifest, OCI_MANIFEST, [annotations], 10 * HOUR)

    def forget(self, digest: Digest) -> None:
        """What its bytes say."""
        del self._facts[digest]

    def also_about(self, digest: Digest, subject: Digest) -> None:
        facts = self._facts[digest]
        self._facts[digest] = facts._replace(subjects=(*facts.subjects, Reference(subject, 1, OCI_MANIFEST)))

    def without_row(self, digest: Digest) -> None:
        self._rows = [row for row in self._rows if row["digest"] != digest]

    @property
    def marks(self) -> Reachable:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._rows}
        index = parse_index(json.dumps(document).encode())
        return Reachable(index, None, reach(index.digests, self._facts), [], self._facts)

    def gone(
        self, *policies: Policy, name: str = "app", delay: float = DELAY, untagged_delay: float | None = None,
        foreign: bool = False, untagged: bool = True,
    ) -> set[str]:  # fmt: skip
        """The tags that go, and the digests of rows that go as a whole."""
        rules = Rules(Retention(delay=untagged_delay, policies=policies), delay, foreign, untagged)
        return {drop.tag or str(drop.digest) for drop in decide(name, self.marks, self.past, rules, NOW)}


@pytest.fixture
def rows() -> Rows:
    return Rows()


def keeping(*entries: KeepTags, **fields: bool) -> Policy:
    return Policy(ALL, keep_tags=entries, **fields)  # type: ignore[arg-type]


# -- which policy ---------------------------------------------------------------------------------


def test_the_first_policy_that_matches_decides_alone(rows: Rows) -> None:
    rows.image("v1")
    assert rows.gone(keeping(KeepTags(patterns=("v1",))), keeping(KeepTags(patterns=("none",)))) == set()
    assert rows.gone(keeping(KeepTags(patterns=("none",))), keeping(KeepTags(patterns=("v1",)))) == {"v1"}


def test_where_no_policy_matches_nothing_goes(rows: Rows) -> None:
    rows.image(seed="untagged")
    assert rows.gone(Policy(("other/**",))) == set()


def test_without_any_policy_untagged_manifests_go_as_configured(rows: Rows) -> None:
    untagged = rows.image(seed="untagged")
    assert (rows.gone(), rows.gone(untagged=False)) == ({untagged}, set())


# -- which tags -----------------------------------------------------------------------------------


@pytest.mark.parametrize("patterns", [("no", "v"), ("x1",), ("^rv",), ("1$",)])
def test_a_pattern_matches_anywhere_and_any_of_several_will_do(rows: Rows, patterns: tuple[str, ...]) -> None:
    rows.image("rvx1")
    assert rows.gone(keeping(KeepTags(patterns=patterns))) == set()


def test_a_tag_that_names_its_own_manifest_stays_with_another_tag_of_it(rows: Rows) -> None:
    body = images.image("twice").manifest
    own = f"sha256-{digest_of(body).encoded}"
    rows.image("v1", "v2", own, seed="twice")
    assert rows.gone(keeping(KeepTags(patterns=("v2",)))) == {"v1"}
    assert rows.gone(keeping(KeepTags(patterns=("v3",)))) == {"v1", "v2", own}


@pytest.mark.parametrize(
    ("pushed", "pulled", "keep", "stays"),
    [
        (50, None, KeepTags(pulled_within=100), True),  # so new that there was no time to pull it
        (50, 500, KeepTags(pulled_within=100), True),  # pushed again after a pull
        (500, 50, KeepTags(pulled_within=100), True),
        (500, 200, KeepTags(pulled_within=100), False),
        (500, None, KeepTags(pulled_within=100), False),
        (500, 100, KeepTags(pulled_within=100), True),
        (100, None, KeepTags(pushed_within=100), True),
        (101, None, KeepTags(pushed_within=100), False),
        (500, 50, KeepTags(pushed_within=100), False),  # a pull is no push
        (500, 50, KeepTags(pulled_within=100, pushed_within=100), True),
        (50, None, KeepTags(pulled_within=10, pushed_within=100), True),
        (50, None, KeepTags(pulled_within=100, pushed_within=10), True),
        (500, None, KeepTags(pulled_within=0), False),
        (500, None, KeepTags(pushed_within=0), False),
        (500, 50, KeepTags(pushed_within=100, most_recently_pulled_count=1), True),
        (500, None, KeepTags(pushed_within=100, most_recently_pulled_count=1), False),
        (500, None, KeepTags(pulled_within=100, most_recently_pushed_count=1), True),
    ],
)
def test_any_rule_keeps(rows: Rows, pushed: float, pulled: float | None, keep: KeepTags, stays: bool) -> None:
    rows.image("v1", pushed=pushed, pulled=pulled)
    assert rows.gone(keeping(keep)) == (set() if stays else {"v1"})


def test_of_those_that_were_pulled_last_so_many_are_kept(rows: Rows) -> None:
    """By their pulls, whatever was pushed last; and what was never pulled is none of them."""
    rows.image("v1", pushed=900, pulled=10)
    rows.image("v2", pushed=800, pulled=20)
    rows.image("v3", pushed=700, pulled=30)
    rows.image("v4", pushed=600)
    assert rows.gone(keeping(KeepTags(most_recently_pulled_count=2))) == {"v3", "v4"}
    assert rows.gone(keeping(KeepTags(most_recently_pushed_count=2))) == {"v1", "v2"}


@pytest.mark.parametrize(
    "keep",
    [
        KeepTags(pushed_within=100),
        KeepTags(pulled_within=100),
        KeepTags(most_recently_pushed_count=1),
        KeepTags(most_recently_pulled_count=1),
    ],
)
def test_a_tag_that_was_not_pushed_here_is_kept_by_any_rule(rows: Rows, keep: KeepTags) -> None:
    """Nothing says how old it is."""
    rows.image("v1", pushed=50, pulled=50)
    rows.image("foreign", pushed=None)
    assert rows.gone(keeping(keep)) == set()


# -- which rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delay", "age", "goes"),
    [
        (0.0, 0.0, True),
        (0.0, 1.0, True),
        (50.0, 60.0, True),
        (50.0, 50.0, True),
        (50.0, 49.0, False),
        (500.0, 200.0, False),
    ],
)
def test_untagged_manifests_have_a_delay_of_their_own(rows: Rows, delay: float, age: float, goes: bool) -> None:
    untagged = rows.image(seed="untagged", pushed=age)
    assert rows.gone(Policy(ALL), untagged_delay=delay) == ({untagged} if goes else set())
    assert rows.gone(Policy(ALL)) == ({untagged} if age >= DELAY else set())


def test_so_has_a_referrer_and_a_list_of_referrers_that_of_the_collection(rows: Rows) -> None:
    lost = digest_of(b"an image that is gone")
    referrer = rows.image(seed="referrer", pushed=200, subject=lost)
    response = images.image("response").manifest
    listing = rows.add(response, OCI_MANIFEST, [{OLAREG_SUBJECT: str(lost)}], pushed=200)
    policy = Policy(ALL, delete_referrers=True)
    assert rows.gone(policy, untagged_delay=150) == {referrer, listing}
    assert rows.gone(policy, untagged_delay=500) == {listing}
    assert rows.gone(policy, untagged_delay=150, delay=500) == {referrer}


def test_a_tag_that_is_about_what_is_gone_has_the_delay_of_the_collection(rows: Rows) -> None:
    tag = f"sha256-{digest_of(b'an image that is gone').encoded}.sig"
    rows.image("v1", tag, pushed=200)
    policy = Policy(ALL, delete_referrers=True)
    assert rows.gone(policy, untagged_delay=500) == {tag}
    assert rows.gone(policy, untagged_delay=0, delay=500) == set()


def test_where_its_row_goes_as_a_whole_the_tag_is_not_told_of_beside(rows: Rows) -> None:
    signature = rows.image(f"sha256-{digest_of(b'an image that is gone').encoded}.sig", pushed=200)
    assert rows.gone(Policy(ALL, delete_referrers=True)) == {signature}


def test_a_referrer_with_a_tag_goes_only_where_referrers_may_and_nothing_of_its_subject_is_here(rows: Rows) -> None:
    image = rows.image("v1")
    lost = rows.image("lost", subject=digest_of(b"an image that is gone"))
    kept = rows.image("kept", subject=image)
    assert rows.gone(Policy(ALL, delete_referrers=True)) == {lost}
    assert rows.gone(Policy(ALL)) == set()
    assert kept not in rows.gone(keeping(KeepTags(patterns=("v1", "kept")), delete_referrers=True))


def test_a_referrer_whose_subject_field_is_repeated_stays_with_either(rows: Rows) -> None:
    """Another tool has stored it; readers differ in which of the two they take."""
    untagged = rows.image(seed="untagged")
    rows.also_about(rows.image("referrer", subject=digest_of(b"an image that is gone")), untagged)
    assert rows.gone(Policy(ALL, delete_referrers=True)) == set()


def test_a_signature_with_a_full_name_goes_with_its_image(rows: Rows) -> None:
    tag = f"sha256-{digest_of(b'an image that is gone').encoded}.sig"
    signature = rows.named({REF_NAME: f"example.com/app:{tag}"})
    assert rows.gone(Policy(ALL, delete_referrers=True)) == {signature}


def test_where_untagged_manifests_stay_they_stay(rows: Rows) -> None:
    rows.image(seed="untagged")
    assert rows.gone(Policy(ALL, delete_untagged=False)) == set()


@pytest.mark.parametrize("name", [REF_NAME, CONTAINERD_NAME])
def test_a_row_with_a_name_that_is_no_tag_is_kept(rows: Rows, name: str) -> None:
    """Whoever wrote that wants it kept."""
    rows.named({name: "not a tag!"})
    assert rows.gone(Policy(ALL)) == set()


@pytest.mark.parametrize("name", [REF_NAME, CONTAINERD_NAME])
def test_a_row_with_a_full_name_is_kept(rows: Rows, name: str) -> None:
    rows.named({name: "example.com/app:v1"})
    assert rows.gone(Policy(ALL)) == set()


def test_a_row_whose_tag_a_later_row_has_too_is_kept(rows: Rows) -> None:
    """Be the tag one that names an image, or one that names what it is about."""
    rows.image("v1", seed="first")
    rows.image("v1", seed="second")
    about = f"sha256-{digest_of(b'an image that is gone').encoded}.sig"
    older = rows.image(about, seed="older")
    rows.image(about, seed="newer")
    gone = rows.gone(Policy(ALL, delete_referrers=True))
    assert "v1" not in gone and older not in gone
    assert rows.gone(Policy(ALL)) == set()


def test_of_untagged_manifests_those_are_kept_that_were_pushed_last(rows: Rows) -> None:
    """By the push of the manifest, for it has no tag; without a rule in the table, all that is there goes."""
    old, new = rows.image(seed="old", pushed=400), rows.image(seed="new", pushed=300)
    assert rows.gone(Policy(ALL, keep_untagged=Keep(most_recently_pushed_count=1))) == {old}
    assert rows.gone(Policy(ALL, keep_untagged=Keep(pushed_within=350))) == {old}
    assert rows.gone(Policy(ALL, keep_untagged=Keep())) == {old, new}


def test_an_untagged_manifest_that_was_not_pushed_here_is_kept_by_any_rule_of_them(rows: Rows) -> None:
    digest = rows.image(seed="foreign", pushed=None)
    rows.past.noted[digest] = NOW - 2 * DELAY
    assert rows.gone(Policy(ALL, keep_untagged=Keep(pushed_within=1)), foreign=True) == set()


def test_a_manifest_that_was_not_pushed_here_goes_when_that_is_asked_for_and_it_was_noted(rows: Rows) -> None:
    digest = rows.image(seed="foreign", pushed=None)
    rows.past.noted[digest] = NOW - 2 * DELAY
    assert (rows.gone(), rows.gone(foreign=True)) == (set(), {digest})
    rows.past.noted[digest] = NOW - DELAY / 2
    assert rows.gone(foreign=True) == set()


def test_one_that_lost_its_tag_here_has_its_delay_from_then(rows: Rows) -> None:
    """It was not pushed here, and yet something is known of it: no note is needed."""
    digest = rows.image(seed="foreign", pushed=None)
    rows.past.pushed[digest] = NOW - 2 * DELAY
    assert rows.gone() == {digest}
    rows.past.pushed[digest] = NOW - DELAY / 2
    assert rows.gone(foreign=True) == set()


def test_noted_is_what_came_from_elsewhere_once_and_has_no_tag_of_an_image(rows: Rows) -> None:
    rows.image(seed="pushed here")
    rows.past.noted[rows.image(seed="noted", pushed=None)] = NOW
    rows.past.pushed[rows.image(seed="lost its tag here", pushed=None)] = NOW
    rows.image("v1", pushed=None)
    untagged = rows.image(seed="untagged", pushed=None)
    signature = rows.image(f"sha256-{digest_of(b'gone').encoded}.sig", pushed=None)
    assert set(foreign_untagged(rows.marks, rows.past)) == {untagged, signature}


# -- what is about others -------------------------------------------------------------------------


def test_a_tag_may_name_its_target_by_the_beginning_of_a_longer_digest(rows: Rows) -> None:
    """Also that of something that is no list and no signature by its form."""
    body = images.image("long").manifest
    target = digest_of(body, "sha512")
    rows.add(body, OCI_MANIFEST, [{REF_NAME: "v1"}], 10 * HOUR, "sha512")
    tag = f"sha512-{target.encoded[:64]}"
    rows.image(tag)
    attachments = Attachments(rows.marks)
    assert (set(attachments.tags), attachments.names) == ({tag}, set())


def test_what_is_about_a_layer_stays_with_its_image(rows: Rows) -> None:
    rows.image("v1")
    layer = digest_of(images.image("v1").blobs[1])
    rows.image(f"sha256-{layer.encoded}.sig", seed="signature")
    assert rows.gone(Policy(ALL, delete_referrers=True)) == set()


def test_a_subject_stays_whose_row_is_all_that_is_known_of_it(rows: Rows) -> None:
    """A blob, or a manifest that was not read: it has a row, and no facts."""
    subject = rows.image(seed="subject")
    rows.image("referrer", subject=subject)
    rows.forget(subject)
    assert rows.gone(Policy(ALL)) == set()


def test_what_a_subject_without_a_row_lists_stays(rows: Rows) -> None:
    child = rows.image(seed="child")
    body = images.index([(child, len(images.image("child").manifest))])
    subject = rows.add(body, OCI_INDEX, [], 10 * HOUR)
    rows.image("referrer", subject=subject)
    rows.without_row(subject)
    assert rows.gone(Policy(ALL)) == set()

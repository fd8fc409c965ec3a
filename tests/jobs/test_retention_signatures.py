"""A signature, an SBOM, an attestation lives and goes with what it is about, and counts as no image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.retaining import KINDS, NAME, Place, cosign_tag, keep, places
from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.jobs.gc import GcOptions, Planner
from zotctl.jobs.retention import Drop, Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest
from zotctl.oci.reference import OLAREG_SUBJECT
from zotctl.storage import keys

KEEP_V = Policy(("**",), keep_tags=(KeepTags(patterns=("^v",)),))
EVERYTHING = Policy(("**",), delete_referrers=True)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield from places(request.param)


@pytest.mark.parametrize("suffix", [".sig", ".att", ".sbom", "", ".7f3a.meta"])
def test_a_tag_that_names_a_kept_image_is_kept_without_a_pattern_of_its_own(place: Place, suffix: str) -> None:
    image = place.push("v1", seed="image")
    signature = place.sign(image, suffix)
    place.rounds(KEEP_V)
    assert place.tags == [cosign_tag(image, suffix), "v1"]
    assert place.has(image) and place.has(signature)


@pytest.mark.parametrize("referrers", [False, True])
def test_signatures_count_nowhere(place: Place, referrers: bool) -> None:
    one, two, three = (place.push(f"v{n}", seed=str(n)) for n in range(1, 4))
    for image in (one, two, three):
        place.sign(image)
        place.sign(image, ".att")
    place.later()
    place.collect(keep(2, referrers=referrers))
    assert [tag for tag in place.tags if tag.startswith("v")] == ["v2", "v3"]
    assert {cosign_tag(d, suffix) for d in (two, three) for suffix in (".sig", ".att")} <= set(place.tags)
    assert place.has(two) and place.has(three)


def test_it_goes_with_the_image(place: Place) -> None:
    old, new = place.push("v1", seed="old"), place.push("v2", seed="new")
    signature, kept = place.sign(old), place.sign(new)
    attested = place.sign(signature, ".att")
    place.rounds(keep(1))
    assert place.tags == [cosign_tag(new), "v2"]
    assert [place.has(d) for d in (old, signature, attested, new, kept)] == [False, False, False, True, True]


def test_without_delete_referrers_a_signature_outlives_its_image_as_in_zot(place: Place) -> None:
    old = place.push("v1", seed="old")
    place.push("v2", seed="new")
    signature = place.sign(old)
    place.rounds(keep(1, referrers=False))
    assert place.tags == [cosign_tag(old), "v2"]
    assert place.has(signature) and not place.has(old)


def test_at_any_depth(place: Place) -> None:
    child = place.push(seed="child")
    index = place.index("v1", children=[child])
    sbom = place.sign(child, ".sbom")
    signature = place.sign(sbom)
    attested = place.sign(signature, ".att")
    referrer = place.push(seed="referrer", subject=index)
    about_referrer = place.sign(referrer)
    place.rounds(keep(1))
    found = [child, index, sbom, signature, attested, referrer, about_referrer]
    assert [place.has(digest) for digest in found] == [True] * len(found)
    place.push("v2", seed="newer")
    place.rounds(keep(1))
    assert place.tags == ["v2"]
    assert [place.has(digest) for digest in found] == [False] * len(found)


def test_a_fallback_tag_keeps_and_loses_its_referrers(place: Place) -> None:
    """distribution-spec, "Referrers Tag Schema"."""
    image = place.push("v1", seed="image")
    referrer = place.push(seed="notation", subject=image)
    fallback = place.index(cosign_tag(image, ""), children=[referrer])
    place.rounds(keep(1))
    assert all(map(place.has, (image, referrer, fallback)))
    place.push("v2", seed="newer")
    place.rounds(keep(1))
    assert place.tags == ["v2"]
    assert not any(map(place.has, (image, referrer, fallback)))


def test_a_tag_with_the_first_64_digits_of_a_longer_digest_names_it(place: Place) -> None:
    image = place.push_sha512("v1", seed="image")
    referrer = place.push(seed="notation", subject=image)
    short = f"sha512-{image.encoded[:64]}"
    fallback, signature = place.index(short, children=[referrer]), place.push(f"{short}.sig", seed="signature")
    place.rounds(keep(1))
    assert place.tags == [short, f"{short}.sig", "v1"]
    assert all(map(place.has, (image, referrer, fallback, signature)))
    place.push("v2", seed="newer")
    place.rounds(keep(1))
    assert place.tags == ["v2"]


def _olareg(place: Place, subject: Digest, referrers: list[Digest]) -> Digest:
    """olareg lists the referrers of a subject in an index of its own, by a row that says whose they are; they have no
    rows themselves."""
    response = place.index(children=referrers)

    def change(index: dict[str, list[dict[str, object]]]) -> None:
        rows = [row for row in index["manifests"] if row["digest"] not in referrers]
        for row in rows:
            if row["digest"] == response:
                row["annotations"] = {OLAREG_SUBJECT: str(subject)}
        index["manifests"] = rows

    place.rewrite(change)
    return response


@pytest.mark.parametrize("policies", [(), (KEEP_V,), (EVERYTHING,)], ids=["none", "keepTags", "deleteReferrers"])
def test_olaregs_response_is_kept_with_its_subject(place: Place, policies: tuple[Policy, ...]) -> None:
    image = place.push("v1", seed="image")
    referrer = place.push(seed="referrer", subject=image)
    response = _olareg(place, image, [referrer])
    place.rounds(*policies, foreign=True)
    assert all(map(place.has, (image, referrer, response)))
    assert [found.digest for found in place.store.repository(NAME).referrers(image)] == [referrer]


def test_olaregs_response_goes_with_its_subject(place: Place) -> None:
    image = place.push("v1", seed="image")
    place.push("v2", seed="newer")
    referrer = place.push(seed="referrer", subject=image)
    response = _olareg(place, image, [referrer])
    place.rounds(keep(1), foreign=True)
    assert place.tags == ["v2"]
    assert not any(map(place.has, (image, referrer, response)))


@pytest.mark.parametrize("referrers", [False, True])
def test_a_subject_stays_while_its_referrer_does(place: Place, referrers: bool) -> None:
    """By digest, too: its row is not dropped."""
    subject = place.push(seed="subject")
    place.push("sbom", seed="sbom", subject=subject)
    place.rounds(Policy(("**",), delete_referrers=referrers))
    assert place.has(subject)
    index = place.store.repository(NAME).index()
    assert subject in index, "its row is not dropped"
    place.later()
    assert place.collect(Policy(("**",), delete_referrers=referrers), dry_run=True).items == [], "nor is that planned"


def test_untagged_subject_and_referrer_go_together_when_referrers_may(place: Place) -> None:
    subject = place.push(seed="subject")
    referrer = place.push(seed="sbom", subject=subject)
    above = place.push(seed="above", subject=referrer)
    place.push("v1", seed="other")
    place.later()
    young = place.push(seed="young", subject=above)
    place.collect(EVERYTHING)
    assert all(map(place.has, (subject, referrer, above, young))), "the youngest keeps what it is about"
    place.rounds(EVERYTHING)
    assert not any(map(place.has, (subject, referrer, above, young)))


def test_untagged_subject_stays_with_a_referrer_that_may_not_go(place: Place) -> None:
    subject = place.push(seed="subject")
    referrer = place.push(seed="sbom", subject=subject)
    place.rounds()
    assert place.has(subject) and place.has(referrer)


def test_a_signature_on_two_images_loses_only_the_tag_of_the_one_that_goes(place: Place) -> None:
    old, new = place.push("v1", seed="old"), place.push("v2", seed="new")
    signature = place.sign(old, seed="same")
    assert place.sign(new, seed="same") == signature
    place.rounds(keep(1))
    assert place.tags == [cosign_tag(new), "v2"]
    assert place.has(signature)


def test_a_tag_that_names_its_own_manifest_is_no_signature(place: Place) -> None:
    """It lives and goes with its manifest's other tags; alone it is a tag as any other, and no rule takes it."""
    one, two = place.push("v1", seed="one"), place.push("v2", seed="two")
    alone = place.push(seed="alone")
    for digest, seed in ((one, "one"), (two, "two"), (alone, "alone")):
        assert place.push(cosign_tag(digest, ""), seed=seed) == digest
    place.rounds(keep(1))
    assert place.tags == sorted([cosign_tag(two, ""), cosign_tag(alone, ""), "v2"])
    assert [place.has(d) for d in (one, two, alone)] == [False, True, True]


def test_an_image_called_by_some_hash_is_never_taken_for_a_lost_referrer(place: Place) -> None:
    """A hash of its sources, say: nothing here ever had that digest."""
    unknown = "sha256-" + "ab" * 32
    image = place.push(unknown, seed="image")
    lost_signature = place.push(f"{unknown}.sig", seed="lost")
    lost_fallback = place.index("sha256-" + "cd" * 32, children=[])
    place.rounds(keep(1))
    assert place.tags == [unknown]
    assert [place.has(d) for d in (image, lost_signature, lost_fallback)] == [True, False, False]


def test_keep_untagged_does_not_count_what_is_about_others(place: Place) -> None:
    tagged = place.push("v1", seed="tagged")
    image = place.push(seed="image")
    place.later(0.2)
    for number in range(3):
        place.push(seed=f"sbom {number}", subject=tagged)
    child = place.push(seed="child")
    place.index("multi", children=[child])
    place.rounds(Policy(("**",), keep_untagged=Keep(most_recently_pushed_count=1)))
    assert place.has(image)


def test_foreign_signatures_go_with_their_image_when_foreign_rows_may(place: Place) -> None:
    """They were never pushed here: their delay runs from the collection that sees them first."""
    image = place.push("v1", seed="image")
    signature = place.sign(image)
    place.later()
    place.store.repository_for_push(NAME).delete_manifest(image)
    _forget(place)
    place.rounds(EVERYTHING)
    assert place.has(signature), "not asked for"
    place.rounds(EVERYTHING, foreign=True)
    assert not place.has(signature)


def _forget(place: Place) -> None:
    """As if another tool had written it all."""
    place.store.close()
    if place.kind == "bucket":
        for key in [key for key in place.memory.stored if key.startswith(keys.HISTORY)]:
            place.memory.delete(key)
        for key in [key for key in place.memory.stored if "/blobs/" in key]:
            place.memory.put(key, place.memory.stored[key].body)  # without our metadata
    else:
        for entry in place.driver.scan(keys.HISTORY):
            place.driver.unlink(f"{keys.HISTORY}/{entry.name}")
    place.store = place.another()


def test_i5_nothing_is_dropped_when_a_manifest_can_no_longer_be_read(place: Place) -> None:
    """What was planned is decided again on the index that is replaced."""
    child = place.push(seed="child")
    index = place.index(children=[child])
    place.push("v1", seed="other")
    place.later()
    plan = _planner(place).plan()
    assert plan is not None and {drop.digest for drop in plan.drops} == {child, index}
    if place.kind == "bucket":
        place.memory.delete(keys.blob(NAME, child))
    else:
        place.driver.unlink(keys.blob(NAME, child))
    place.store = place.another()
    _planner(place).drop_rows(plan.drops)
    rows = place.store.repository(NAME).index()
    assert index in rows and child in rows


def test_of_rows_that_go_together_none_goes_before_those_that_lead_to_it(place: Place) -> None:
    """Not all that was decided is done: on a bucket some of it has to settle first."""
    subject = place.push(seed="subject")
    referrer = place.push(seed="referrer", subject=subject)
    place.push("v1", seed="other")
    place.later()
    planner = _planner(place, EVERYTHING)
    assert {drop.digest for drop in decided(planner)} == {subject, referrer}
    plan = planner.plan(lambda drops, past: [drop for drop in drops if drop.digest != referrer])
    assert plan is not None and plan.drops == []
    planner.drop_rows([drop for drop in decided(planner) if drop.digest != referrer])
    assert subject in place.store.repository(NAME).index()


def decided(planner: Planner) -> list[Drop]:
    plan = planner.plan()
    assert plan is not None
    return plan.drops


def _planner(place: Place, *policies: Policy) -> Planner:
    rules = Rules(Retention(policies=policies) if policies else None, delay=0.0)
    return Planner(Run("gc", place.store), place.store.roots[0], NAME, GcOptions(0.0, rules=rules), place.clock.at)

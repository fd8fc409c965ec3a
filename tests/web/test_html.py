"""Every page: what keyboards, screen readers, phones and strict browsers need."""

from __future__ import annotations

import itertools
import re
from base64 import b64encode
from hashlib import sha256

import pytest

from tests.stores import push_image
from tests.web.places import COMMON, REGISTRY, Page, Place, push_artifact, push_platforms
from zotctl.jobs.run import Run
from zotctl.web import words
from zotctl.web.health import health
from zotctl.web.images import image_page
from zotctl.web.render import policy, render, style
from zotctl.web.report import write_report
from zotctl.web.repositories import repository_lines
from zotctl.web.tags import tag_page


def pages() -> dict[str, bytes]:
    place = Place("directory")
    digest = push_platforms(place.store, "team/app", "1.0", annotations={"a": "b"})
    push_artifact(place.store, "team/app", digest, "application/spdx+json")
    push_image(place.store, "team/app", "image")
    store, name = place.store, "team/app"
    repository = store.repository(name)
    tags = {"name": name, "page": tag_page(repository, None, ""), "wanted": "", **REGISTRY}
    index = {"name": name, "image": image_page(repository, "1.0"), **REGISTRY}
    image = {"name": name, "image": image_page(repository, "image"), **REGISTRY}
    found: dict[str, tuple[str, dict[str, object]]] = {
        "repositories": (
            "repositories.html",
            {"lines": repository_lines(store, [name]), "after": None, "last": "a", "wanted": "x"},
        ),
        "empty": ("repositories.html", {"lines": [], "after": None, "last": None, "wanted": ""}),
        "tags": ("tags.html", tags),
        "index": ("image.html", index),
        "image": ("image.html", image),
        "health": ("health.html", {"roots": health(store)}),
        "error": ("error.html", {"status": 404, "message": "no repository x here", "request_id": "1-2"}),
    }
    run = Run("gc", store)
    run.finish(lambda: None)
    written = write_report(run.report, run, [{"action": "drop", "repository": name, "digest": str(digest)}], 1)
    return {"report": written} | {
        name: render(template, {**COMMON, **values}) for name, (template, values) in found.items()
    }


PAGES = pages()
FORMS = ("repositories", "tags")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_usable_without_eyes_and_without_a_mouse(name: str) -> None:
    page = Page(PAGES[name])
    tags = [tag for tag, _ in page.elements]
    assert PAGES[name].startswith(b"<!doctype html>")
    assert [attributes["lang"] for attributes, _ in page.all("html")] == ["en"]
    assert next(page.all("title"))[1] and tags.index("title") < tags.index("body")
    for landmark in ("header", "main", "footer", "h1"):
        assert tags.count(landmark) == 1, landmark
    assert all("aria-label" in attributes for attributes, _ in page.all("nav"))
    first, _ = next(page.all("a"))
    assert first == {"class": "skip", "href": "#main"}
    assert tags.count("table") == tags.count("caption")
    assert all("scope" in attributes for attributes, _ in page.all("th"))
    labels = {attributes["for"] for attributes, _ in page.all("label")}
    assert all(attributes["id"] in labels for attributes, _ in page.all("input"))
    headings = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings)), headings
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert all(
        attributes["aria-labelledby"] in identifiers
        for _, attributes in page.elements
        if "aria-labelledby" in attributes
    )
    # What scrolls can be reached by the keyboard; what is a picture has words.
    assert all(attributes.get("tabindex") == "0" for attributes, _ in page.all("pre"))
    assert all(attributes["aria-label"] for attributes, _ in page.all("svg"))
    # Shown as blocks on a phone, a table stays one by its roles.
    assert all(attributes.get("role") == "table" for attributes, _ in page.all("table"))
    assert all("role" in attributes for tag in ("tr", "td", "th") for attributes, _ in page.all(tag))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_and_runs_nothing(name: str) -> None:
    page = Page(PAGES[name])
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base"}
    assert ("form" in tags) == (name in FORMS)
    assert next(page.all("style"))[1] == " ".join(style().split())
    for _, attributes in page.elements:
        assert "style" not in attributes and not [key for key in attributes if key.startswith("on")]
        for key in ("href", "action", "src"):
            assert attributes.get(key, "/").startswith(("/", "#")), attributes
    assert "url(" not in style() and "@import" not in style() and "</" not in style()


def test_the_policy_allows_the_style_sheet_and_forms() -> None:
    (sheet,) = re.findall(r"<style>(.*?)</style>", PAGES["index"].decode(), re.DOTALL)
    allowed = b64encode(sha256(sheet.encode()).digest()).decode()
    assert policy() == (
        f"default-src 'none'; style-src 'sha256-{allowed}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_text_can_be_read(theme: int) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5, in the light and in the dark."""
    blocks = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[theme]))
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("ground", "surface", "code")]
    pairs += [(name, f"{name}-soft") for name in ("good", "warn", "bad")] + [
        ("ink", f"{n}-soft") for n in ("bad", "good")
    ]
    pairs += [("accent", f"{name}-soft") for name in ("accent", "bad", "warn")] + [
        ("surface", "accent"),
        ("bad", "surface"),
    ]
    for ink, ground in pairs:
        light, dark = sorted((_luminance(colors[ink]), _luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


@pytest.mark.parametrize(
    ("value", "words_"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (150 << 20, "150 MiB"),
        (1 << 50, "1024.0 TiB"),
        (10**400, "1073741824.0 TiB"),
    ],
)
def test_sizes(value: int, words_: str) -> None:
    assert words.size(value) == words_


@pytest.mark.parametrize(
    ("seconds", "words_"),
    [(-5, "just now"), (1, "1 second ago"), (90, "1 minute ago"), (7200, "2 hours ago"), (86400 * 45, "45 days ago"),
     (86400 * 100, "3 months ago"), (86400 * 800, "2 years ago")],
)  # fmt: skip
def test_ages(seconds: float, words_: str) -> None:
    assert words.ago(1e9, 1e9 + seconds) == words_


def test_moments_that_no_calendar_has() -> None:
    assert (words.moment(1e30), words.stamp(float("inf"))) == ("unknown", "")
    assert (words.moment(0), words.stamp(0)) == ("1970-01-01 00:00 UTC", "1970-01-01T00:00:00Z")

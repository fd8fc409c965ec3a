"""One manifest: what it is, what it consists of, what is about it, and how to pull it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from zotctl.errors import DigestInvalid, ManifestInvalid, NotFound, StorageError, ZotctlError
from zotctl.oci.codec import load_json
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.manifest import Manifest, read_manifest
from zotctl.oci.media_types import EMPTY, is_index
from zotctl.storage import Repository, keys
from zotctl.storage.facts import facts_of, read_content
from zotctl.storage.graph import read_verified
from zotctl.web import words
from zotctl.web.manifests import MOST_UNREAD, Damage, kind_of
from zotctl.web.platforms import in_words, is_attestation, platform_of
from zotctl.web.tags import attached_tags

MOST_SHOWN = 200
"""Layers, platforms, referrers or tags on a page."""
CONFIG_BYTES = 1 << 20
"""A larger config is not read for a page."""
MOST_WORDS = 4000
"""Characters of one value that are shown."""
CREATED = "org.opencontainers.image.created"

_SUFFIXES = {".sig": "signature (cosign)", ".att": "attestation (cosign)", ".sbom": "SBOM (cosign)"}


class Part(NamedTuple):
    """A config or layer. `trouble`: "damaged", "missing" or "". `made_by`: the step of the build, if it is known."""

    digest: str
    media_type: str
    size: int
    trouble: str
    made_by: str = ""


class Platform(NamedTuple):
    """An image that an index lists. `contents`: the sizes of all that it needs, itself included, by digest; nothing if
    it can't be read."""

    name: str
    digest: str
    trouble: str
    contents: dict[str, int]

    @property
    def size(self) -> int | None:
        """In bytes; None: not known."""
        return sum(self.contents.values()) or None


class Referrer(NamedTuple):
    """A manifest that is about this one. `tag`: by which it is found, "" for one that says so itself."""

    kind: str
    digest: str
    size: int
    created: str
    tag: str


class Fact(NamedTuple):
    """A line about an image."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ImagePage:
    """One manifest. `referrers`: None if there are too many manifests to look for them."""

    reference: str
    digest: str
    media_type: str
    kind: str
    size: int
    """Of all that was looked at."""
    trouble: str
    tags: list[str]
    more_tags: int
    platforms: list[Platform]
    config: Part | None
    layers: list[Part]
    left_out: int
    """Layers or platforms that are not shown."""
    facts: list[Fact]
    labels: list[Fact]
    annotations: list[Fact]
    subject: str | None
    referrers: list[Referrer] | None
    is_runnable: bool
    """Does it run as a container?"""


def image_page(repository: Repository, reference: str) -> ImagePage:
    """Raises ManifestUnknown, NameUnknown; and ManifestInvalid for what can't be read as a manifest."""
    stored = repository.manifest(reference)
    manifest, digest = read_manifest(stored.body, stored.digest), stored.digest
    damaged = Damage(repository)
    config = _config(repository, manifest)
    history = _history(config)
    blobs = (*manifest.layers, *manifest.artifacts)
    steps = [*history, *[""] * len(blobs)]
    each = repository.root.protocol.each
    layers = each([partial(_part, repository, damaged, *one) for one in zip(blobs[:MOST_SHOWN], steps, strict=False)])
    platforms = each([partial(_platform, repository, damaged, one) for one in manifest.manifests[:MOST_SHOWN]])
    part = _part(repository, damaged, manifest.config) if manifest.config is not None else None
    troubles = [*(one.trouble for one in layers), *(one.trouble for one in platforms), part.trouble if part else ""]
    rows = repository.index().rows_of(digest, MOST_SHOWN + 1)
    tags = sorted({tag for row in rows if (tag := row.tag or row.alias)})
    return ImagePage(
        reference=reference,
        digest=str(digest),
        media_type=stored.media_type,
        kind=kind_of(manifest, stored.media_type),
        size=_size(manifest, platforms),
        trouble=next(filter(None, troubles), ""),
        tags=tags[:MOST_SHOWN],
        more_tags=max(0, repository.index().count_of(digest) - MOST_SHOWN),
        platforms=platforms,
        config=part,
        layers=layers,
        left_out=max(0, len(blobs) - MOST_SHOWN) + max(0, len(manifest.manifests) - MOST_SHOWN),
        facts=_facts(config),
        labels=_pairs(_run(config).get("Labels")),
        annotations=_pairs(manifest.annotations),
        subject=manifest.subject.digest if manifest.subject is not None else None,
        referrers=_referrers(repository, digest),
        is_runnable=_is_runnable(manifest),
    )


def _is_runnable(manifest: Manifest) -> bool:
    if is_index(manifest.media_type):
        return manifest.artifact_type is None and any(platform_of(one) for one in manifest.manifests)
    return manifest.artifact_type is None and kind_of(manifest, manifest.media_type) == "image"


def _size(manifest: Manifest, platforms: Sequence[Platform]) -> int:
    """What several platforms have counts once."""
    contents = {one.digest: one.size for one in (*manifest.manifests, *manifest.blobs)}
    for platform in platforms:
        contents |= platform.contents
    return manifest.size + sum(contents.values())


def _part(repository: Repository, damaged: Damage, one: Descriptor, made_by: str = "") -> Part:
    return Part(one.digest, one.media_type, one.size, _trouble(repository, damaged, one), made_by)


def _trouble(repository: Repository, damaged: Damage, one: Descriptor) -> str:
    if one.digest in damaged:
        return "damaged"
    root = repository.root
    try:
        digest = parse_digest(one.digest)
        if root.by_requests:
            size = root.maintenance.look(repository.name, digest).size
        else:
            info = root.stat(key := keys.blob(repository.name, digest))
            if info is None and root.maintenance.is_trashed(repository.name, digest):
                return ""
            info = info or root.stat(key)  # it may have come back between the two looks
            if info is None:
                return "missing"
            size = info.size
    except NotFound:
        return "missing"
    except (StorageError, DigestInvalid):
        return "unclear"
    return "" if size == one.size else "damaged"


def _platform(repository: Repository, damaged: Damage, one: Descriptor) -> Platform:
    name = f"attestation of {words.short(_about(one))}" if is_attestation(one) else platform_of(one) or "any"
    trouble = _trouble(repository, damaged, one)
    contents: dict[str, int] = {}
    if not trouble:
        with suppress(StorageError, DigestInvalid, ManifestInvalid):
            digest = parse_digest(one.digest)
            known = repository.root.graphs.of(repository.name).known_facts(digest)
            facts = known.facts if known is not None else None
            if facts is None:
                body = read_verified(repository.root.protocol, repository.name, digest)
                facts = facts_of(read_manifest(body, digest))
            contents = {one.digest: facts.size} | {blob.digest: blob.size for blob in facts.blobs}
    return Platform(name, one.digest, trouble, contents)


def _about(one: Descriptor) -> str:
    return (one.annotations or {}).get("vnd.docker.reference.digest", "")


# -- the config ----------------------------------------------------------------------------------


def _config(repository: Repository, manifest: Manifest) -> dict[str, Any]:
    """What the config says; nothing if it is no JSON object, is large, or can't be read."""
    config = manifest.config
    if config is None or config.media_type == EMPTY or config.size > CONFIG_BYTES:
        return {}
    with suppress(ZotctlError, ValueError):
        digest = parse_digest(config.digest)
        with repository.open_blob(digest) as reader:
            found = load_json(read_content(reader, digest, True).body or b"")
        return found if isinstance(found, dict) else {}
    return {}


def _history(config: dict[str, Any]) -> list[str]:
    """The steps of the build that made a layer: image-spec, config.md, "history"."""
    steps = config.get("history")
    made = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    return [_text(step.get("created_by")) for step in made if not step.get("empty_layer")]


def _facts(config: dict[str, Any]) -> list[Fact]:
    run = _run(config)
    found = [
        Fact("Platform", in_words(config)),
        Fact("Created", _time(config.get("created"))),
        Fact("Author", _text(config.get("author"))),
        Fact("User", _text(run.get("User"))),
        Fact("Entrypoint", _words(run.get("Entrypoint"))),
        Fact("Command", _words(run.get("Cmd"))),
        Fact("Directory", _text(run.get("WorkingDir"))),
        Fact("Ports", ", ".join(_keys(run.get("ExposedPorts")))),
        Fact("Volumes", ", ".join(_keys(run.get("Volumes")))),
        Fact("Environment", "\n".join(_list(run.get("Env")))),
    ]
    return [fact for fact in found if fact.value]


def _run(config: dict[str, Any]) -> dict[str, Any]:
    """How to run it: image-spec, config.md, "config"."""
    run = config.get("config")
    return run if isinstance(run, dict) else {}


def _pairs(found: Any) -> list[Fact]:
    if not isinstance(found, dict):
        return []
    return [Fact(str(name)[:MOST_WORDS], _text(value)) for name, value in sorted(found.items())[:MOST_SHOWN]]


def _text(value: Any) -> str:
    return value[:MOST_WORDS] if isinstance(value, str) else ""


def _list(value: Any) -> list[str]:
    return [_text(one) for one in value[:MOST_SHOWN]] if isinstance(value, list) else []


def _words(value: Any) -> str:
    return " ".join(_list(value))[:MOST_WORDS]


def _keys(value: Any) -> list[str]:
    return [str(one)[:MOST_WORDS] for one in list(value)[:MOST_SHOWN]] if isinstance(value, dict) else []


def _time(value: Any) -> str:
    try:
        return words.moment(datetime.fromisoformat(_text(value)).timestamp())
    except (ValueError, OverflowError):
        return _text(value)


# -- what is about it ----------------------------------------------------------------------------


def _referrers(repository: Repository, digest: Digest) -> list[Referrer] | None:
    found = []
    for tag, suffix in attached_tags(repository, digest)[:MOST_SHOWN]:
        row = repository.index().find(tag)
        if row is not None and row.digest is not None and row.digest != digest:
            kind = _SUFFIXES.get(suffix, "list of referrers" if not suffix else f"attachment ({suffix})")
            found.append(Referrer(kind, str(row.digest), row.size, "", tag))
    whole = repository.graph(MOST_UNREAD)
    if whole is None:
        return found or None
    with whole:
        pass  # so that the list below is of this state
    for one in repository.referrers(digest)[:MOST_SHOWN]:
        created = _text((one.annotations or {}).get(CREATED))
        found.append(Referrer(_artifact(one.artifact_type), one.digest, one.size, _time(created), ""))
    return found


def _artifact(artifact_type: str | None) -> str:
    """What people call an artifact of this type."""
    known = artifact_type or ""
    if "sigstore" in known or "signature" in known or "cosign" in known:
        return f"signature ({words.media(known)})"
    if "spdx" in known or "cyclonedx" in known or "sbom" in known:
        return f"SBOM ({words.media(known)})"
    return words.media(known) or "manifest"

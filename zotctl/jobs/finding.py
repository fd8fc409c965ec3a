"""What is wrong with content, as every job reports it: one frozen value, with its kind and the rule that it breaks.

A finding is about content; what kept a job from looking at content is an error (docs/design/invariants.md#i15).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from zotctl.storage.facts import Fault

Kind = Literal[
    "digest_mismatch", "size_mismatch", "missing_blob", "missing_manifest", "unreadable", "invalid_manifest",
    "unknown_media_type", "media_type_mismatch", "bad_ref_name", "duplicate_tag", "stub", "orphan", "invalid_layout",
    "invalid_index", "bad_name", "two_roots", "mode", "wire",
]  # fmt: skip

DAMAGE_KINDS = frozenset[str](
    {"digest_mismatch", "size_mismatch", "missing_blob", "missing_manifest", "invalid_manifest",
     "media_type_mismatch", "stub", "invalid_layout", "invalid_index", "wire"}
)  # fmt: skip
"""Kinds that end a run with exit code 4. The others are worth knowing, but nothing is broken."""

DESCRIPTOR_SPEC = 'image-spec, descriptor.md, "Properties"'
ALGORITHMS_SPEC = 'image-spec, descriptor.md, "Registered algorithms"'
LAYOUT_FILE_SPEC = 'image-spec, image-layout.md, "oci-layout file"'
CONTENT_SPEC = 'image-spec, image-layout.md, "Content"'
INDEX_SPEC = 'image-spec, image-index.md, "Image Index Property Descriptions"'
MANIFEST_SPEC = 'image-spec, manifest.md, "Image Manifest Property Descriptions"'
DOCKER_SPEC = "Docker Image Manifest Version 2, Schema 2"

SPECS: dict[Kind, str] = {
    "digest_mismatch": 'image-spec, descriptor.md, "Verification"',
    "size_mismatch": DESCRIPTOR_SPEC,
    "stub": DESCRIPTOR_SPEC,
    "missing_blob": 'image-spec, image-layout.md, "Blobs"',
    "missing_manifest": 'image-spec, image-layout.md, "Blobs"',
    "invalid_manifest": MANIFEST_SPEC,
    "media_type_mismatch": DESCRIPTOR_SPEC,
    "unknown_media_type": 'image-spec, image-layout.md, "index.json file"',
    "bad_ref_name": 'image-spec, annotations.md, "Pre-Defined Annotation Keys"',
    "duplicate_tag": 'image-spec, image-layout.md, "index.json file"',
    "invalid_layout": LAYOUT_FILE_SPEC,
    "invalid_index": INDEX_SPEC,
    "bad_name": 'distribution-spec, "Pulling manifests"',
}
"""The section of a specification that a kind of finding breaks, unless the finding itself names another."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with content.

    `repository`: its name; "" for what belongs to a root. `digest`: None if it is about the layout itself. `tags`: all
    tags whose clients would meet it. `action`: what was done about it. `details`: more fields of the report, such as
    `path` and `expected_bytes`. `spec`: the rule that is broken, if it is not the one in `SPECS`.
    """

    repository: str
    digest: str | None
    kind: Kind
    reason: str
    tags: tuple[str, ...] = ()
    action: str = "none"
    details: dict[str, Any] = field(default_factory=dict)
    spec: str | None = None

    @classmethod
    def of_fault(cls, repository: str, fault: Fault, tags: tuple[str, ...], **more: Any) -> Finding:
        """The finding for a fault of a manifest graph, whose kinds are kinds of findings. `more`: fields of the
        finding."""
        more = {"reason": fault.reason} | more
        return cls(repository, fault.digest or None, cast(Kind, fault.kind), tags=tags, **more)

    def with_rule(self) -> Finding:
        """A copy with the rule that is broken in its reason, and as `spec` in its details, for `verify`."""
        if (rule := self.spec or SPECS.get(self.kind)) is None:
            return self
        return replace(self, reason=f"{self.reason} ({rule})", details={"spec": rule} | self.details)

    def as_fields(self) -> dict[str, Any]:
        """The fields that a report has for it."""
        fields = {"repository": self.repository, "digest": self.digest, "kind": self.kind, "tags": list(self.tags)}
        return fields | {"reason": self.reason, "action": self.action} | self.details

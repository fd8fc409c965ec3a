"""Which bucket, and how it is reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BucketSettings:
    """None: as boto3 finds it by itself (environment, profile, role, AWS_ENDPOINT_URL_S3, AWS_CA_BUNDLE).

    `prefix`: the root within the bucket, "" for all of it. `addressing`: "path", "virtual", or "auto", which
    is "path" for every endpoint but Amazon's. `verify`: a file of certificates, or False for no check at all.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    profile: str | None = None
    addressing: str = "auto"
    dual_stack: bool = False
    accelerate: bool = False
    verify: bool | str = True
    storage_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    acl: str | None = None
    max_connections: int = 64

    @property
    def label(self) -> str:
        """s3://BUCKET/PREFIX"""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __repr__(self) -> str:
        """No secrets, wherever it is printed."""
        return f"BucketSettings({self.label}, endpoint={self.endpoint}, access_key={self.access_key})"

    def written(self) -> dict[str, str]:
        """What each request that makes an object says beside its key and bytes."""
        wanted = {
            "StorageClass": self.storage_class,
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key,
            "ACL": self.acl,
        }
        return {name: value for name, value in wanted.items() if value}

    def ways(self) -> dict[str, bool]:
        """To Amazon's endpoints, in botocore's words. What isn't wished is left out, for AWS_* may wish it."""
        wanted = {"use_dualstack_endpoint": self.dual_stack, "use_accelerate_endpoint": self.accelerate}
        return {name: True for name, value in wanted.items() if value}

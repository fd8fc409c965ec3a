"""Translates zot's `storageDriver`: a bucket, with the keys of distribution's driver for S3."""

from __future__ import annotations

from typing import Any

from zotctl.config.address import SCHEME
from zotctl.config.problems import OTHER_CLOUD
from zotctl.config.zot_rules import Keys, Translation, ZotValue, passed_over, refused, text, to, warned

DRIVER = "storagedriver"
NOT_HERE = "ignored: this version has no use for it"


def is_on_s3(store: object) -> bool:
    """Whether a table of zot's, `storage` or one of `subPaths`, lies in a bucket."""
    driver = _lowered(_lowered(store).get(DRIVER))
    return driver.get("name") == "s3"


def _lowered(table: object) -> dict[str, Any]:
    return {key.lower(): value for key, value in table.items()} if isinstance(table, dict) else {}


def other_driver(translation: Translation, found: ZotValue) -> None:
    """The rule of a `storageDriver` that is not S3: it is refused."""
    name = _lowered(found.value).get("name")
    if name in ("gcs", "azure"):
        return refused(OTHER_CLOUD)(translation, found)
    refused(f"{name!r} is no driver of zot's: name it s3, or remove the key and name a directory")(translation, found)


def driver(translation: Translation, found: ZotValue) -> None:
    """The rule of a `storageDriver` that is S3: it says where the bucket is and how it is reached."""
    if not isinstance(found.value, dict):
        return translation.problems.mistake(translation.where(found.key), f"{found.value!r} is not a table")
    said = _lowered(found.value)
    s3 = found.table.setdefault("s3", {})
    known = {key: value for key, value in found.value.items() if key.lower() in KEYS}
    for key in found.value.keys() - known.keys():
        translation.problems.warn(translation.where(f"{found.key}.{key}"), "ignored: unknown to zot's driver for S3")
    translation.walk(KEYS, ZotValue(found.key, known, s3, f"{found.path}.s3"))
    _place(translation, found, said)
    _endpoint(translation, found, said)
    _encryption(translation, found, said)
    _acceleration(translation, found, said)


def _place(translation: Translation, found: ZotValue, said: dict[str, Any]) -> None:
    where = ZotValue(f"{found.key}.bucket", None, found.table, found.path)
    translation.document.note(f"{found.path}.path", "", translation.where(where.key))
    if bucket := said.get("bucket"):
        prefix = zot_prefix(str(said.get("rootdirectory") or ""))
        translation.set(where, "path", f"{SCHEME}{bucket}/{prefix}".rstrip("/"))


def zot_prefix(root_directory: str) -> str:
    """The prefix where zot really puts its data: zot prepends `rootdirectory` to its paths, and its driver once
    more."""
    once = root_directory.strip("/")
    return f"{once}/{once}" if once else ""


def _endpoint(translation: Translation, found: ZotValue, said: dict[str, Any]) -> None:
    if not (endpoint := said.get("regionendpoint")):
        return
    where = ZotValue(f"{found.key}.regionendpoint", None, found.table["s3"], f"{found.path}.s3")
    if isinstance(endpoint, str) and "://" not in endpoint:
        endpoint = f"{'https' if _flag(said.get('secure', True)) else 'http'}://{endpoint}"
    translation.set(where, "endpoint", endpoint)


def _encryption(translation: Translation, found: ZotValue, said: dict[str, Any]) -> None:
    if _flag(said.get("encrypt", False)):
        where = ZotValue(f"{found.key}.encrypt", None, found.table["s3"], f"{found.path}.s3")
        translation.set(where, "encryption", "aws:kms" if said.get("keyid") else "AES256")


def _acceleration(translation: Translation, found: ZotValue, said: dict[str, Any]) -> None:
    """Acceleration is ignored where an endpoint is named, which is then reached as it is."""
    wanted = _flag(said.get("accelerate", False))
    where = ZotValue(f"{found.key}.accelerate", wanted, found.table["s3"], f"{found.path}.s3")
    if wanted and said.get("regionendpoint"):
        warned("ignored beside regionendpoint, which is reached as it is")(translation, where)
    elif wanted:
        translation.set(where, "accelerate", wanted)


def _flag(value: object) -> object:
    """The driver accepts booleans as strings, too."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _boolean(_: Translation, found: ZotValue) -> object:
    return None if found.value == "" else _flag(found.value)


def _addressing(_: Translation, found: ZotValue) -> object:
    flag = _flag(found.value)
    return ("path" if flag else "auto") if isinstance(flag, bool) else found.value


def _word(_: Translation, found: ZotValue) -> object:
    """A string, which YAML or JSON may have turned into a number."""
    return str(found.value) if found.value not in ("", None) else None


def _storage_class(_: Translation, found: ZotValue) -> object:
    value = found.value.upper() if isinstance(found.value, str) else found.value
    return None if value in ("", "NONE", "STANDARD") else value


def _acl(_: Translation, found: ZotValue) -> object:
    return None if found.value in ("", "private") else found.value


def _signature(translation: Translation, found: ZotValue) -> None:
    if _flag(found.value) is False:
        translation.problems.mistake(
            translation.where(found.key), "signatures of version 2 aren't made here; remove the key"
        )


def _if_true(text: str) -> Any:
    return lambda translation, found: warned(text)(translation, ZotValue(found.key, _flag(found.value), {}, ""))


KEYS: Keys = {
    "name": passed_over,
    "bucket": passed_over,
    "rootdirectory": passed_over,
    "regionendpoint": passed_over,
    "secure": passed_over,
    "encrypt": passed_over,
    "accelerate": passed_over,
    "region": to("region", text),
    "accesskey": to("access_key", _word),
    "secretkey": to("secret_key", _word),
    "sessiontoken": to("session_token", _word),
    "skipverify": to("insecure", _boolean),
    "forcepathstyle": to("addressing", _addressing),
    "keyid": to("kms_key", text),
    "storageclass": to("storage_class", _storage_class),
    "chunksize": warned("ignored: the size of parts follows that of the blob"),
    "objectacl": to("acl", _acl),
    "usedualstack": to("dual_stack", _boolean),
    "usefipsendpoint": _if_true("ignored here; set AWS_USE_FIPS_ENDPOINT=true"),
    "v4auth": _signature,
    **dict.fromkeys(
        (
            "useragent",
            "loglevel",
            "multipartcopychunksize",
            "multipartcopymaxconcurrency",
            "multipartcopythresholdsize",
        ),
        warned(NOT_HERE),
    ),
}
"""The booleans `secure`, `encrypt` and `accelerate` are read together with the endpoint or the key that they
qualify."""


def dedupe(translation: Translation, found: ZotValue) -> None:
    """The rule of `dedupe`: honoured only if the file sets it, since zot can't read content in `_blobs`."""
    translation.set(found, "dedupe", found.value)
    if found.value is True:
        translation.problems.warn(
            translation.where(found.key),
            "blobs that are pushed from now on lie in _blobs, once; before zot comes back run `zotctl dedupe --undo`",
        )


def redirect(translation: Translation, found: ZotValue) -> None:
    """The rule of `redirectBlobURL`: honoured; our key belongs to the bucket."""
    s3 = found.table.setdefault("s3", {})
    translation.set(ZotValue(found.key, None, s3, f"{found.path}.s3"), "redirect", found.value)

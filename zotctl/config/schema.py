"""The kinds of values that keys have, and how a class of `model` describes the keys of a table by its annotations.

A kind says how a value is read from a file and from the environment, and how it is shown again. Its reader raises
ValueError with the rule that the value breaks; the caller adds the key."""

from __future__ import annotations

import ipaddress
import re
import warnings
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from functools import cache
from typing import Any, get_type_hints

import durationpy

from zotctl.config.address import read_root
from zotctl.config.globs import check_glob

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
REDACTED = "(hidden)"
"""Stands for a secret wherever a configuration is shown."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    `name` stands in the man page. `read` takes what a TOML file can hold, and raises ValueError. `parse` makes that of
    a string from the environment. `show` returns a value as a TOML file would have it.
    """

    name: str
    read: Callable[[object], Any]
    parse: Callable[[str], object] = str
    show: Callable[[Any], Any] = lambda value: value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{value!r} is not a text on one line")
    return value


def _path(value: object) -> str:
    if not (text := _text(value)):
        raise ValueError("an empty path")
    return text


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _boolean_word(text: str) -> object:
    return _BOOLEANS.get(text.lower(), text)


def _number_word(text: str) -> object:
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else text


def _secret(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError("not a text on one line; it isn't shown here, for it is a secret")
    return value


_is_url = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^?#@\s]*)?").fullmatch


def _url(value: object) -> str:
    text = _text(value)
    if "@" in text:
        raise ValueError("an endpoint holds no credentials; write http://HOST:PORT, and the keys on their own")
    if not _is_url(text):
        raise ValueError(f"{text!r} is not the URL of a server; write http://HOST:PORT or https://HOST")
    return text.rstrip("/")


_TAKEN = ("/v2", "/ui", "/livez", "/readyz", "/startupz")
_is_endpoint = re.compile(r"/[A-Za-z0-9._~/-]{1,200}").fullmatch


def _endpoint(value: object) -> str:
    """The path of a URL that the registry does not use itself."""
    text = _text(value)
    if not _is_endpoint(text):
        raise ValueError(f"{text!r} is not the path of a URL, such as '/metrics'")
    if f"{text}/".startswith(tuple(f"{taken}/" for taken in _TAKEN)):
        raise ValueError(f"{text!r} is the registry's own")
    return text


_FIELD_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}").fullmatch
_ATTRIBUTES = {
    **dict.fromkeys(("commonname", "cn"), "CommonName"),
    **dict.fromkeys(("subject", "dn"), "Subject"),
    **dict.fromkeys(("email", "rfc822name"), "Email"),
    **dict.fromkeys(("uri", "url"), "URI"),
    **dict.fromkeys(("dnsname", "dns"), "DNSName"),
}


def _field_name(value: object) -> str:
    if not _FIELD_NAMES(text := _text(value)):
        raise ValueError(f"{text!r} is not the name of a header field")
    return text


def _user(value: object) -> str:
    if not (text := _text(value)):
        raise ValueError("an empty name; clients without a login have a policy of their own: anonymous_policy")
    return text


def _network(value: object) -> IPNetwork:
    text = _text(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a network such as '10.0.0.0/8'") from None


def _attribute(value: object) -> str:
    if (name := _ATTRIBUTES.get(_text(value).strip().lower())) is None:
        raise ValueError(f"{value!r} is none of CommonName, Subject, Email, URI, DNSName")
    return name


TEXT = Kind("text", _text)
USER = Kind("name", _user)
FIELD_NAME = Kind("name of a header field", _field_name)
NETWORK = Kind("network", _network, show=str)
CERTIFICATE_ATTRIBUTE = Kind("attribute", _attribute)
PATH = Kind("path", _path)
ROOT = Kind("path", lambda value: read_root(_path(value)))
URL = Kind("URL", _url)
ENDPOINT = Kind("path of a URL", _endpoint)
SECRET = Kind("secret", _secret, show=lambda _: REDACTED)
BOOLEAN = Kind("boolean", _boolean, _boolean_word)


def integer(minimum: int, maximum: int = 2**63 - 1) -> Kind:
    """The kind of a whole number within limits, both of which are allowed."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is not a whole number")
        if not minimum <= value <= maximum:
            limits = f"{minimum} to {maximum}" if maximum < 2**63 - 1 else f"{minimum} or more"
            raise ValueError(f"{value} is outside of {limits}")
        return value

    return Kind("integer", read, _number_word)


def _port(value: object) -> int:
    return int(integer(0, 65535).read(_number_word(value) if isinstance(value, str) else value))


PORT = Kind("port", _port)


LEAST_RATE = 1e-9
"""The time between two requests is counted in nanoseconds of 64 bits."""


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST_RATE <= value < float("inf"):
        raise ValueError(f"{value!r} is not a number of {LEAST_RATE} or more")
    return float(value)


RATE = Kind("number", _rate, _number_word)


def choice(*words: str) -> Kind:
    """The kind of one of a few words."""

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return str(value)

    return Kind(" | ".join(words), read)


def _list(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list")
    return list(value)


def _comma_list(text: str) -> object:
    return [word.strip() for word in text.split(",") if word.strip()]


def words(of: Kind = TEXT, collect: Callable[[list[Any]], Any] = tuple) -> Kind:
    """The kind of a list, each value of the kind `of`; separated by commas in the environment."""
    return Kind(
        f"list of {of.name}",
        lambda value: collect([of.read(item) for item in _list(value)]),
        _comma_list,
        lambda value: [of.show(item) for item in (sorted(value) if isinstance(value, frozenset) else value)],
    )


# What only one of RE2, which zot uses, and Python knows: look-around, back references, possessive
# quantifiers, named classes, \z, \Q, \p. A file means the same in both, or is refused.
_not_portable = re.compile(r"\(\?(?:[=!<>(#]|P[=>])|\\[1-9zZQEpPCX]|\[\[:|[*+?}]\+").search


def _pattern(value: object) -> str:
    text = _text(value)
    if found := _not_portable(text):
        raise ValueError(f"{found[0]!r} in the pattern {text!r} isn't the same in all regular expressions")
    try:
        with warnings.catch_warnings():
            # Of what other versions of Python may understand as set operations: zot has none.
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(text, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


PATTERN = Kind("regular expression", _pattern)


def _glob(value: object) -> str:
    check_glob(text := _text(value))
    return text


GLOB = Kind("glob", _glob)

_BYTES = {
    "": 1,
    "B": 1,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
}
_size_parts = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]*)", re.ASCII).fullmatch


def parse_size(value: object) -> int:
    """Bytes, from 4194304 or "4MiB". Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    parts = _size_parts(value) if isinstance(value, str) else None
    if not parts or parts[2] not in _BYTES:
        raise ValueError(f"{value!r} is not a size such as 4194304, '4MiB' or '1.5GB'")
    return int(float(parts[1]) * _BYTES[parts[2]]) if "." in parts[1] else int(parts[1]) * _BYTES[parts[2]]


def show_size(size: int) -> object:
    """ "4MiB" if it comes out even, else the number of bytes."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return size


SIZE = Kind("size", parse_size, show=show_size)

_is_duration = re.compile(r"0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h|d|w))+", re.ASCII).fullmatch


def parse_duration(value: object) -> float:
    """Seconds, from "1h30m" as in Go, and from days (d) and weeks (w). Raises ValueError."""
    if not isinstance(value, str) or not _is_duration(value):
        raise ValueError(f"{value!r} is not a duration such as '30s', '1h30m' or '7d'")
    try:
        return durationpy.from_str(value).total_seconds()
    except (OverflowError, ValueError):
        raise ValueError(f"{value!r} is longer than any duration can be") from None


def _timeout(value: object) -> float:
    if (seconds := parse_duration(value)) <= 0:
        raise ValueError("a time-out of nothing; a long one is written as '24h'")
    return seconds


def _show_duration(seconds: float) -> str:
    return durationpy.to_str(timedelta(seconds=seconds)) if seconds else "0s"


DURATION = Kind("duration", parse_duration, show=_show_duration)
TIMEOUT = Kind("duration", _timeout, show=_show_duration)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A part of each day in UTC, in minutes after midnight; it may wrap around midnight."""

    start: int
    end: int

    def __contains__(self, minute: int) -> bool:
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        return "-".join(f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (self.start, self.end))


_is_window = re.compile(r"([01]?\d|2[0-3]):([0-5]\d) *- *([01]?\d|2[0-3]):([0-5]\d)", re.ASCII).fullmatch


def _window(value: object) -> TimeWindow:
    parts = _is_window(value) if isinstance(value, str) else None
    if not parts:
        raise ValueError(f"{value!r} is not a time window such as '01:00-08:00'")
    hours = [int(part) for part in parts.groups()]
    window = TimeWindow(hours[0] * 60 + hours[1], hours[2] * 60 + hours[3])
    if window.start == window.end:
        raise ValueError(f"start and end of {value!r} are equal")
    return window


WINDOW = Kind("HH:MM-HH:MM", _window, show=str)


def parse_listen(text: str) -> tuple[str, int]:
    """Address and port from "127.0.0.1:5000", "[::]:5000", ":5000". Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is not HOST:PORT; an IPv6 address stands in brackets: '[::]:5000'")
    return host[1:-1] if bracketed else host, _port(port)


@dataclass(frozen=True, slots=True)
class Table:
    """The kind of a table with the keys of `cls`; a string in its place is the value of the key `short`."""

    cls: type
    short: str | None = None
    layered: bool = False
    """Whether a key that a root's table does not have is taken from the table for all roots."""


@dataclass(frozen=True, slots=True)
class Tables(Table):
    """The kind of a list of such tables."""


@dataclass(frozen=True, slots=True)
class Key:
    """The annotation of a key: its kind, its meaning, and a description of its default where the value is not
    enough."""

    kind: Kind | Table
    doc: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key with its name and its default. MISSING: there is none."""

    name: str
    key: Key
    default: Any

    @property
    def required(self) -> bool:
        """Whether a table without this key is a mistake."""
        return self.default is MISSING


@cache
def entries(cls: type) -> dict[str, KeyEntry]:
    """The keys of a class by name, required ones first. Attributes without a `Key` are left out."""
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for item in fields(cls):
        for key in getattr(hints[item.name], "__metadata__", ()):
            default = item.default if item.default_factory is MISSING else item.default_factory()
            found[item.name] = KeyEntry(item.name, key, default)
    return dict(sorted(found.items(), key=lambda item: not item[1].required))

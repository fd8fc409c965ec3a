from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.config.globs import matches
from zotctl.config.schema import (
    DURATION,
    GLOB,
    PATTERN,
    PORT,
    TEXT,
    TIMEOUT,
    WINDOW,
    parse_duration,
    parse_listen,
    parse_size,
    show_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6s", 6), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("0s", 0), ("0", 0), ("1.5h", 5400),
     ("250ms", 0.25), ("7d", 604800), ("2w", 1209600), ("3600000000000ns", 3600)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value", ["-1s", "+1s", "5", "", "1h 30m", "1y", "1e3s", "s", "soon", 5, 5.0, True, None, "9" * 30 + "h"]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@given(st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 10**3))
def test_a_duration_shown_reads_as_itself(seconds: float) -> None:
    assert parse_duration(DURATION.show(seconds)) == seconds


def test_a_timeout_is_more_than_nothing() -> None:
    assert TIMEOUT.read("1ms") == 0.001
    with pytest.raises(ValueError, match="time-out of nothing"):
        TIMEOUT.read("0s")


@pytest.mark.parametrize(
    ("value", "size"),
    [(0, 0), (4194304, 4194304), ("4MiB", 4 << 20), ("1.5GB", 1_500_000_000), ("10 KiB", 10240), ("7B", 7)],
)  # fmt: skip
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", [-1, "-1", "4M", "4mib", "", "MiB", True, 1.5, None, "1e3", "9" * 40])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(value)


@given(st.integers(0, 2**50))
def test_a_size_shown_reads_as_itself(size: int) -> None:
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize("value", [0, 5000, 65535, "0", "8080"])
def test_ports(value: int | str) -> None:
    assert PORT.read(value) == int(value)


@pytest.mark.parametrize("value", [-1, 65536, "65536", "", "http", "-1", True, 1.0, None, "٣"])
def test_what_is_no_port(value: object) -> None:
    with pytest.raises(ValueError, match=r"number|outside"):
        PORT.read(value)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("[::]:5000", ("::", 5000)),
        ("[::1]:0", ("::1", 0)),
        (":5000", ("", 5000)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_addresses(text: str, listen: tuple[str, int]) -> None:
    assert parse_listen(text) == listen


@pytest.mark.parametrize("text", ["", "5000", "::1:5000", "localhost", "localhost:", "h:x", "h:70000"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|number|outside"):
        parse_listen(text)


def test_a_window_may_wrap_around_midnight() -> None:
    night, day = WINDOW.read("22:30-04:00"), WINDOW.read("1:00 - 08:00")
    assert [minute in night for minute in (22 * 60 + 29, 22 * 60 + 30, 0, 239, 240)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert (str(night), str(day), 60 in day, 480 in day) == ("22:30-04:00", "01:00-08:00", True, False)


@pytest.mark.parametrize("value", ["", "01:00", "24:00-01:00", "01:60-02:00", "01:00-01:00", 5, "a-b"])
def test_what_is_no_window(value: object) -> None:
    with pytest.raises(ValueError, match=r"window|equal"):
        WINDOW.read(value)


@pytest.mark.parametrize("pattern", ["(" * 3000, "(" * 3000 + ")" * 3000, "a{99999999999}"], ids=len)
def test_patterns_of_which_no_expression_is_made(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        PATTERN.read(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["**", "team/{a,b}/**", "{1..1000}", "{a,{b,c}}", "[a-z]*", "[^a]", "[!a]", "\\[", "[\\]]", "[a{]", "\\}"],
)
def test_globs(pattern: str) -> None:
    assert GLOB.read(pattern) == pattern


@pytest.mark.parametrize("pattern", ["[", "a[b", "[]", "[]a]", "[^]", "[!", "{", "a{b", "{a,{b}", "a}", "}{", "a\\"])
def test_a_glob_that_is_not_closed(pattern: str) -> None:
    """zot refuses it; taken for its characters, it would let in whom nobody meant."""
    with pytest.raises(ValueError, match="has no counterpart"):
        GLOB.read(pattern)


@pytest.mark.parametrize("pattern", ["{a,b}" * 12, "{1..99999999}", "{1..99999999}/**"])
def test_a_glob_that_stands_for_too_many(pattern: str) -> None:
    with pytest.raises(ValueError, match="limit of 1000"):
        GLOB.read(pattern)


def test_any_number_of_globs_may_match() -> None:
    assert matches("a1999", [f"a{number}" for number in range(2000)])


@pytest.mark.parametrize("pattern", ["v2.*", ".*-prod", r"^\d+\.\d+$", "(?i)rc", "(?:a|b)", "(?P<n>x)", "[a-z]+?"])
def test_patterns(pattern: str) -> None:
    assert PATTERN.read(pattern) == pattern


@pytest.mark.parametrize("pattern", ["(?=x)", "(?<!x)y", r"(a)\1", "[[:alpha:]]", r"x\z", r"\Qx", r"\pL", "a++", "("])
def test_patterns_that_differ_between_engines(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        PATTERN.read(pattern)


def test_a_text_is_one_line() -> None:
    with pytest.raises(ValueError, match="one line"):
        TEXT.read("*\r\nX-Evil: 1")

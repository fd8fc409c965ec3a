"""From a template and values to HTML.

Everything that comes from a store or a client is escaped by Jinja2, and cut where it is long; a name that a template
misses is an error. A page has one style sheet, which its policy names by its hash, and nothing else that a browser
could load or run.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import zotctl
from zotctl.web import words

CONTENT_TYPE = "text/html; charset=utf-8"


MOST_CHARACTERS = 4000
"""Of one value: a manifest may call its platform a megabyte."""


@lru_cache(1)
def style() -> str:
    """The style sheet of every page."""
    return (files("zotctl.web") / "style.css").read_text(encoding="utf-8")


@lru_cache(1)
def policy() -> str:
    """The Content-Security-Policy of every page (https://www.w3.org/TR/CSP3/): one style sheet, and forms that lead
    back here; no script, no image, no font, no frame."""
    return f"{_in_a_file()}; frame-ancestors 'none'"


@lru_cache(1)
def _in_a_file() -> str:
    """As much of it as counts in the page itself, for one that comes without headers."""
    digest = b64encode(sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'"


def shortened(value: object) -> object:
    """A text that a template writes, at most so long."""
    if isinstance(value, str) and not isinstance(value, Markup) and len(value) > MOST_CHARACTERS:
        return f"{value[:MOST_CHARACTERS]}…"
    return value


def coded(text: str) -> Markup:
    """Our own messages, in which commands stand between backquotes; whatever else is in them stays text."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@lru_cache(1)
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("zotctl.web"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shortened,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        words.size,
        words.number,
        words.ago,
        words.span,
        words.moment,
        words.stamp,
        words.short,
        words.in_path,
        words.media,
        coded,
    )
    made.filters |= {one.__name__: one for one in filters}
    # Our own file, which no value of a store gets into.
    made.globals |= {"style": Markup(style()), "policy": _in_a_file(), "version": zotctl.__version__}
    return made


def render(template: str, values: dict[str, Any]) -> bytes:
    """The page as UTF-8. What no encoder takes, which stored JSON may have, becomes "?". Thread-safe."""
    return _environment().get_template(template).render(values).encode("utf-8", "replace")

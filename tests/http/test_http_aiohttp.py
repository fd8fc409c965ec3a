"""The private parts of aiohttp that we lean on are still there. A new version is looked at here first."""

from __future__ import annotations

import inspect

import aiohttp
from aiohttp import web_protocol
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from zotctl.http.connection import Connection


def test_the_version_that_was_read() -> None:
    assert aiohttp.__version__.startswith("3.14.")


def test_attributes_of_a_connection() -> None:
    slots = {name for kind in RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}
    ours = {
        "_keepalive_timeout",
        "_lingering_time",
        "_loop",
        "_message_tail",
        "_messages",
        "_next_keepalive_close_time",
        "_parser",
        "_request_count",
        "_task_handler",
        "_upgraded",
        "_waiter",
        "transport",
    }
    assert ours <= slots
    assert not set(Connection.__slots__) & slots


def test_hooks() -> None:
    assert list(inspect.signature(RequestHandler.handle_error).parameters) == [
        "self",
        "request",
        "status",
        "exc",
        "message",
    ]
    assert isinstance(RequestHandler.writing_paused, property)
    assert hasattr(HttpRequestParser, "message_consumed")
    assert BaseProtocol.eof_received is not None or RequestHandler.eof_received is not None


def test_calls_on_a_request() -> None:
    """What the protocol does with the object that stands for its own request."""
    source = inspect.getsource(web_protocol)
    used = {line.split("request.")[1].split("(")[0] for line in source.splitlines() if " request._" in line}
    assert "_finish" in used
    assert "_current_request._cancel(" in source


def test_calls_on_an_answer() -> None:
    source = inspect.getsource(RequestHandler.finish_response)
    assert "resp.prepare" in source
    assert "resp.write_eof()" in source
    assert "resp.keep_alive" in inspect.getsource(RequestHandler.start)


def test_the_waiter_is_only_woken_where_we_look() -> None:
    """`data_received` is called with the waiter taken away: it may do nothing else with it."""
    source = inspect.getsource(RequestHandler.data_received)
    assert source.count("_waiter") == 1
    assert "if messages and waiter is not None and not waiter.done():" in source

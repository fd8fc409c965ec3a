"""TLS: its context, made anew when the files change, and the socket that takes connections with it.

asyncio's own server could neither change its certificate nor answer a client that speaks no TLS. Here the first byte
of a connection is looked at before anything is read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import traceback
from collections.abc import Callable

from zotctl.config import TlsConfig
from zotctl.config.watched import FileState, file_state
from zotctl.errors import ConfigError, about_file
from zotctl.http.errors import malformed
from zotctl.http.listener import Listener
from zotctl.http.service import Service

log = logging.getLogger("zotctl.http")

_HANDSHAKE = b"\x16"
"""The content type of the first record of TLS (RFC 8446, section 5.1)."""


def context(config: TlsConfig | None) -> ssl.SSLContext | None:
    """None without TLS. Raises ConfigError that names the faulty file."""
    if config is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    # OpenSSL tells a broken certificate and a broken key by the same words: each is looked at by itself.
    _load("cert", config.cert, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(config.cert))
    _load("key", config.key, lambda: made.load_cert_chain(config.cert, config.key, _no_password))
    if config.client_ca is not None:
        client_ca = config.client_ca
        _load("client_ca", client_ca, lambda: made.load_verify_locations(client_ca))
        # A certificate that a client sends must be valid in any case; the gate decides about a client without one.
        # An intermediate authority may stand there alone, as with zot; what it has not signed is refused all the same.
        made.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        made.verify_mode = ssl.CERT_REQUIRED if config.client_auth == "required" else ssl.CERT_OPTIONAL
    return made


def _load(name: str, path: str, load: Callable[[], None]) -> None:
    where = f"http.tls.{name}: {path}"
    try:
        os.close(os.open(path, os.O_RDONLY))
        load()
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{where}: it is not the key of the certificate in http.tls.cert") from None
        raise ConfigError(f"{where}: {_what(error)}") from None
    except OSError as error:
        raise ConfigError(f"http.tls.{name}: {about_file(path, error)}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _what(error: ssl.SSLError) -> str:
    if error.reason in ("NO_START_LINE", "NO_CERTIFICATE_OR_CRL_FOUND") or "PEM" in (error.library or ""):
        return "it has nothing of its kind in the form PEM"
    return f"it cannot be used ({error.reason or error})"


def _no_password() -> str:
    # Otherwise OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted; give one without a passphrase")


class Certificates:
    """The context of one worker. `context` is for the event loop; `look` for one thread at a time."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._state = self._refused = self._look()
        made = context(config)
        assert made is not None
        self.context = made

    def look(self) -> None:
        """Take what the files have become. While they don't fit together, the old ones stay.

        Kubernetes swaps a symbolic link for all of them at once, certbot writes one after the other: what does not
        fit is told when it has stayed like that from one look to the next.
        """
        state = self._look()
        if state == self._state:
            return
        try:
            made = context(self._config)
        except ConfigError as error:
            if state != self._refused:
                self._refused = state
            else:
                self._state = state
                log.error("the certificate is refused, the old one stays: %s", error.message)
            return
        assert made is not None
        self.context, self._state = made, state
        log.info("the certificate of %s is used from now on", self._config.cert)

    def _look(self) -> tuple[FileState | None, ...]:
        """What tells a change, of the files that the names lead to."""
        paths = (self._config.cert, self._config.key, self._config.client_ca)
        return tuple(_state(path) for path in paths if path is not None)


def _state(path: str) -> FileState | None:
    try:
        return file_state(path)
    except OSError:
        return None


class TlsListener(Listener):
    """A connection begins once its first byte has come."""

    def __init__(self, service: Service, certificates: Certificates, sock: socket.socket) -> None:
        self._certificates = certificates
        self._new: dict[socket.socket, asyncio.TimerHandle] = {}
        super().__init__(service, sock)

    @property
    def beginning(self) -> int:
        """Also those whose handshake is not done."""
        return len(self._new) + len(self._tasks)

    def drop(self) -> None:
        """Also those that have sent nothing."""
        super().drop()
        for connection in list(self._new):
            self._forget(connection)
            connection.close()

    def _take(self, connection: socket.socket) -> None:
        patience = self._service.config.header_timeout
        self._new[connection] = self._loop.call_later(patience, self._give_up, connection)
        self._loop.add_reader(connection, self._begin, connection)

    def _forget(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection)
        self._new.pop(connection).cancel()

    def _give_up(self, connection: socket.socket) -> None:
        self._forget(connection)
        connection.close()

    def _begin(self, connection: socket.socket) -> None:
        """It has sent something, or ended."""
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        self._forget(connection)
        if not first:
            connection.close()
            return
        self._begin_task(self._connect_by(connection, encrypted=first == _HANDSHAKE))

    async def _connect_by(self, connection: socket.socket, *, encrypted: bool) -> None:
        try:
            if encrypted:
                await self._loop.connect_accepted_socket(
                    self._service.connect,
                    connection,
                    ssl=self._certificates.context,
                    ssl_handshake_timeout=self._service.config.header_timeout,
                )
            else:
                await self._loop.connect_accepted_socket(lambda: _PlainRefusal(self._service), connection)
        except (OSError, ssl.SSLError) as error:
            # asyncio's frames refer to the error and to 256 KiB: together they would stay until the collector comes.
            traceback.clear_frames(error.__traceback__)


class _PlainRefusal(asyncio.Protocol):
    """Tells a client without TLS, once it has sent its request, that this port has nothing else."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(self._service.config.header_timeout, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing() or not isinstance(self._transport, asyncio.WriteTransport):
            return
        answer = malformed(400, "this port speaks HTTPS only: ask again with https://")
        self._transport.write(answer.head(self._service) + answer.body)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()

"""TLS for the listener."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from zotctl.config import TlsConfig
from zotctl.errors import ConfigError


def context(config: TlsConfig | None) -> ssl.SSLContext | None:
    """None without TLS. Raises ConfigError that names the faulty file."""
    if config is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    _load(f"{config.cert} and {config.key}", lambda: made.load_cert_chain(config.cert, config.key, _no_password))
    if config.cacert is not None:
        cacert = config.cacert
        _load(cacert, lambda: made.load_verify_locations(cacert))
        # A client need not send a certificate, but one that it sends must be valid.
        made.verify_mode = ssl.CERT_OPTIONAL
    return made


def _load(what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError(f"http.tls: {what}: {getattr(error, 'strerror', None) or error}") from None


def _no_password() -> str:
    # Otherwise OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted; give one without a passphrase")

"""Configuration: defaults < file < environment < flags."""

from zotctl.config.loading import load_config, reload_config
from zotctl.config.model import (
    Config,
    HttpConfig,
    Keep,
    KeepTags,
    LayoutConfig,
    LogConfig,
    MethodRate,
    Policy,
    RateLimit,
    Retention,
    RootConfig,
    RootSettings,
    Route,
    ScrubConfig,
    Source,
    StorageConfig,
    TlsConfig,
)
from zotctl.config.show import show_config
from zotctl.config.values import TimeWindow

__all__ = [
    "Config",
    "HttpConfig",
    "Keep",
    "KeepTags",
    "LayoutConfig",
    "LogConfig",
    "MethodRate",
    "Policy",
    "RateLimit",
    "Retention",
    "RootConfig",
    "RootSettings",
    "Route",
    "ScrubConfig",
    "Source",
    "StorageConfig",
    "TimeWindow",
    "TlsConfig",
    "load_config",
    "reload_config",
    "show_config",
]

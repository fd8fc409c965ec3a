"""Configuration: options override the environment, which overrides the file, which overrides the defaults."""

from zotctl.config.address import Address, is_bucket, parse_address
from zotctl.config.loading import load_config, reload_config
from zotctl.config.model import (
    Config,
    HttpConfig,
    Keep,
    KeepTags,
    LayoutConfig,
    LogConfig,
    MethodRate,
    MetricsConfig,
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
from zotctl.config.s3 import S3Config
from zotctl.config.show import show_config
from zotctl.config.values import TimeWindow

__all__ = [
    "Address",
    "Config",
    "HttpConfig",
    "Keep",
    "KeepTags",
    "LayoutConfig",
    "LogConfig",
    "MethodRate",
    "MetricsConfig",
    "Policy",
    "RateLimit",
    "Retention",
    "RootConfig",
    "RootSettings",
    "Route",
    "S3Config",
    "ScrubConfig",
    "Source",
    "StorageConfig",
    "TimeWindow",
    "TlsConfig",
    "is_bucket",
    "load_config",
    "parse_address",
    "reload_config",
    "show_config",
]

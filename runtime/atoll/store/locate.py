"""What `--store` says, and the store that it names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl

import grpc

from atoll.config import parse_address
from atoll.errors import ConfigError
from atoll.store import Store
from atoll.store.memory import MemoryStore
from atoll.store.sqlite import SqliteStore

FORMS = (
    "memory, sqlite:PATH (or PATH alone), etcd://HOST:PORT[,HOST:PORT]/PREFIX, "
    "etcds://HOST:PORT[,HOST:PORT]/PREFIX?ca=FILE&cert=FILE&key=FILE"
)
_PREFIX = re.compile(r"[A-Za-z0-9._/-]+")


def open_store(text: str, *, job: str) -> Store:
    """Opens a store. Raises ConfigError for a text that is none, or a file that cannot be used.

    Without a prefix the keys in etcd are under `atoll/JOB`.
    """
    if text == "memory":
        return MemoryStore()
    if text.startswith(("etcd:", "etcds:")):
        return _etcd(text, job)
    scheme, colon, path = text.partition(":")
    if colon and scheme == "sqlite":
        if not path:
            raise ConfigError(f"store {text!r}: no path; expected one of {FORMS}")
        return SqliteStore(Path(path))
    if "://" in text or not text:
        raise ConfigError(f"store {text!r}: unknown; expected one of {FORMS}")
    return SqliteStore(Path(text))


def _etcd(text: str, job: str) -> Store:
    from atoll.store.etcd import EtcdStore

    if not text.startswith(("etcd://", "etcds://")):
        raise ConfigError(f"store {text!r}: expected etcd://HOST:PORT[,HOST:PORT]/PREFIX")
    scheme, _, rest = text.partition("://")
    rest, question, files = rest.partition("?")
    if question and scheme == "etcd":
        raise ConfigError(f"store {text!r}: files are for TLS; write etcds://")
    credentials = _credentials(text, files) if scheme == "etcds" else None
    hosts, _, prefix = rest.partition("/")
    endpoints = hosts.split(",")
    for endpoint in endpoints:
        try:
            parse_address(endpoint)
        except ValueError as error:
            raise ConfigError(f"store {text!r}: {endpoint!r}: {error}") from None
    prefix = prefix.strip("/") or f"atoll/{job}"
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"store {text!r}: the prefix may hold letters, digits and . _ - / only")
    return EtcdStore(endpoints, prefix, credentials=credentials)


def _credentials(text: str, files: str) -> grpc.ChannelCredentials:
    """What PEM files hold. No ca: the system's authorities; no cert and key: etcd asks for none."""
    paths = dict(parse_qsl(files, keep_blank_values=True))
    unknown = sorted(paths.keys() - {"ca", "cert", "key"})
    if unknown:
        raise ConfigError(f"store {text!r}: unknown '{unknown[0]}'; there are ca, cert and key")
    if ("cert" in paths) != ("key" in paths):
        raise ConfigError(f"store {text!r}: cert and key go together")
    texts = {}
    for name, path in paths.items():
        try:
            texts[name] = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"store {text!r}: {name} {path}: {error.strerror}") from None
        if b"-----BEGIN" not in texts[name]:
            raise ConfigError(f"store {text!r}: {name} {path}: no PEM file")
    return grpc.ssl_channel_credentials(texts.get("ca"), texts.get("key"), texts.get("cert"))

"""With what certificate this launcher and its islands come to the coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from atoll.client import identity_of
from atoll.trust.identity import CERT_FILE, Identity
from atoll.trust.names import Role
from atoll_launcher.settings import AllSettings

LOCAL = "island"
"""Name in the certificate of the islands beside a job's coordinator: it speaks for island-0, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """identity: with which the launcher asks; None: in the clear. folder: where that is, if it is
    in one. variables: for the islands' environment. name: of the islands, as the certificate says;
    empty: any."""

    identity: Identity | None = None
    folder: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


def access_of(settings: AllSettings, *, hosts: bool, token: str | None) -> Access:
    """Raises ConfigError, LauncherError and CannotJoin."""
    if token is not None:
        from atoll_launcher.trust.enroll import enroll

        identity, place = enroll(token, island="", folder=settings.session.value.tls_dir)
        return _with(identity, place)
    authority = settings.run.value.authority
    if hosts and authority is not None:
        place = authority / LOCAL
        if not (place / CERT_FILE).exists():
            from atoll_launcher.trust.certs import issue_island

            issue_island(authority, LOCAL, place, days=30)
        Identity.in_folder(place).checked(datetime.now(UTC))
        return Access(
            identity=Identity.in_folder(authority / Role.COORDINATOR.value),
            folder=authority / Role.COORDINATOR.value,
            variables={"ATOLL_TLS_DIR": str(place.resolve())},
        )
    own = identity_of(settings.session.value)
    if own is None:
        return Access()
    holder = own.checked(datetime.now(UTC))
    return Access(
        identity=own,
        folder=settings.session.value.tls_dir,
        name=holder.name if holder.role is Role.ISLAND else "",
    )


def _with(identity: Identity, place: Path) -> Access:
    holder = identity.checked(datetime.now(UTC))
    return Access(
        identity=identity,
        folder=place,
        variables={"ATOLL_TLS_DIR": str(place.resolve())},
        name=holder.name,
    )

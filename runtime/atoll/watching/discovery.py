"""Where Prometheus finds a job's islands: the answer to its http_sd_configs.

https://prometheus.io/docs/prometheus/latest/http_sd/ has the format. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping

from atoll.membership.events import JobStatus, PeerStatus
from atoll.trust.exposure import is_loopback

Target = Mapping[str, object]


def place(host: str, port: int, *, secure: bool) -> tuple[str, str]:
    """(http or https, HOST:PORT) of an island's metrics, which others reach at `host`. secure: as
    of `targets`."""
    bare = host.strip("[]")
    scheme = "https" if secure and not is_loopback(host) else "http"
    return scheme, f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def targets(status: JobStatus | None, *, secure: bool) -> list[Target]:
    """The registered peers that serve metrics, by island and shard; none on a standby.

    Labels: `job`, `island`, `shard`, and `reach`, which is "outbound" for islands that nobody can
    dial, so that nobody misses what cannot be read; there are never more series than islands.
    secure: a job with certificates, whose islands serve over TLS beyond loopback.
    """
    if status is None:
        return []
    peers = [p for p in status.peers if p.report is not None and p.report.metrics_port]
    peers.sort(key=lambda peer: (peer.info.island, peer.info.shard))
    spread = not all(_is_home(peer) for peer in status.peers)
    return [
        _target(
            status.job,
            peer,
            secure=secure,
            outbound=peer.info.id in status.unreached or (spread and _is_home(peer)),
        )
        for peer in peers
        if peer.info.endpoints
    ]


def _is_home(peer: PeerStatus) -> bool:
    """Whether it says that only its own machine reaches it."""
    return all(is_loopback(endpoint.host) for endpoint in peer.info.endpoints)


def _target(job: str, peer: PeerStatus, *, secure: bool, outbound: bool) -> Target:
    port = peer.report.metrics_port if peer.report is not None else 0
    scheme, target = place(peer.info.endpoints[0].host, port, secure=secure)
    return {
        "targets": [target],
        "labels": {
            "job": job,
            "island": peer.info.island,
            "shard": str(peer.info.shard),
            **({"reach": "outbound"} if outbound else {}),
            "__scheme__": scheme,
        },
    }

"""Where requests may go: addresses that the configuration names, and never by them to a private network."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Any

import httpx

from engine.errors import ConfigurationError

_CONNECTING, _CONNECTED = "connection.connect_tcp.started", "connection.connect_tcp.complete"


class PrivateAddressError(Exception):
    """A public name that led to an address of this machine or of a private network."""


class Origins:
    """The origins one client may ask: those of its addresses and, beside an official one, all official hosts.

    An address that the environment gives (a sandbox, a gateway) may be private; the provider's own hosts may
    not, whatever their name resolves to.
    """

    def __init__(self, addresses: Iterable[str], official_hosts: Iterable[str]) -> None:
        self._official = frozenset(official_hosts)
        self._allowed = {_origin(httpx.URL(address)) for address in addresses if address}
        if any(host in self._official for _, host, _ in self._allowed):
            self._allowed |= {("https", host, 443) for host in self._official}

    def check(self, url: httpx.URL, *, provider: str) -> None:
        """Raise ConfigurationError for a URL elsewhere: an API's next link goes where its answers say."""
        if _origin(url) in self._allowed and not url.userinfo:
            return
        where = f"{url.scheme}://{url.netloc.decode(errors='replace').rpartition('@')[2]}"[:120]
        raise ConfigurationError(
            f"{provider}: nothing is sent to {where}, which is no address of the provider.",
            fix="If the API continues there, name the host in official_hosts of providers.yml.",
            field="official_hosts",
        )

    def extensions(self, url: httpx.URL) -> dict[str, Any]:
        """What a request to this URL carries so that its connection is looked at before anything is sent."""
        return {"trace": _Look(url.host)} if url.host in self._official else {}


class _Look:
    """Looks at the address a connection has reached; a proxy's is the environment's own affair.

    httpcore asks for a coroutine function, which an object with an async `__call__` satisfies.
    """

    def __init__(self, host: str) -> None:
        self._host, self._direct = host, False

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event == _CONNECTING:
            self._direct = info["host"] == self._host
        elif event == _CONNECTED and self._direct:
            address = str(info["return_value"].get_extra_info("server_addr")[0])
            if not is_public(address):
                await info["return_value"].aclose()
                raise PrivateAddressError(f"{self._host} leads to {address}")


def is_public(address: str) -> bool:
    """False for loopback, link-local, private and otherwise reserved addresses, IPv4 inside IPv6 included."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme, 0)

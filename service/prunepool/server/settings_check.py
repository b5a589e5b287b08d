"""Settings that cannot be honoured are refused before anything is loaded."""

from __future__ import annotations

from ipaddress import ip_address

from prunepool.access import KeysFile
from prunepool.api.listening import addresses_of
from prunepool.errors import InvalidParameter
from prunepool.settings import Settings


def check(settings: Settings) -> None:
    """See that settings go together, and that the API keys can be read.

    Raises:
        InvalidParameter: names the one that cannot be what it is.
        CannotListen: the name of the host is unknown.
    """
    if settings.grpc_port and settings.grpc_port == settings.port:
        raise InvalidParameter("grpc_port", settings.grpc_port, "another port than `port`, which is HTTP's")
    anybody = settings.api_keys_file is None and not is_loopback(settings.host)
    if settings.model_control == "explicit" and anybody:
        limit = f"none where {settings.host} can be reached by others and api_keys_file is unset"
        raise InvalidParameter("model_control", settings.model_control, limit)
    if settings.api_keys_file is not None:
        KeysFile(settings.api_keys_file).read()


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine alone, at each of its addresses.

    Raises:
        CannotListen: the name is unknown.
    """
    return all(ip_address(address).is_loopback for address in addresses_of(host))

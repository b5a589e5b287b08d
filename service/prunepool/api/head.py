"""What a request's headers must be, beyond what the parser checks, so that no two servers read them differently."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

from prunepool.api.refusal import Refusal, bad_request

#: RFC 3986: a name or an address, and a port. Empty where the target has no authority.
_HOST = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?")
Headers = Sequence[tuple[bytes, bytes]]


def fault_of(method: bytes, version: str, headers: Headers) -> Refusal | None:
    """Return why a request is refused whose headers the parser takes; None if it is not.

    Args:
        method: as the parser read it.
        version: of HTTP, as `"1.1"`.
        headers: names in lower case, and values without spaces around them.
    """
    if version not in ("1.0", "1.1"):
        return bad_request(f"the version must be HTTP/1.1 or HTTP/1.0; got HTTP/{version}")
    if method == b"CONNECT":
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "this server is no proxy")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return bad_request(f"a request must have one Host header; got {len(hosts)}")
    if hosts and not _HOST.fullmatch(hosts[0]):
        return bad_request(f"Host must be a name or an address, and a port; got {_shown(hosts[0])}")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and version == "1.0":
        return bad_request("HTTP/1.0 has no Transfer-Encoding; send Content-Length, or HTTP/1.1")
    if codings and codings[0].lower() != b"chunked":
        return bad_request(f"Transfer-Encoding must be chunked; got {_shown(codings[0])}")
    return None


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return a request line and headers again, without the header that offers to change the protocol.

    Args:
        method: as the parser read it.
        url: the target of the request.
        version: of HTTP, as `"1.1"`.
        headers: names in lower case, and values.
    """
    lines = [b" ".join((method, url, b"HTTP/" + version.encode("ascii")))]
    lines += [name + b": " + value for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))

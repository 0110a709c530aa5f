"""The server of a blind review: on this machine alone, or, with a token, for others too."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from cptlab.errors import UserError

if TYPE_CHECKING:
    from cptlab.review.store import Review, Reviewer

GRACE_SECONDS = 2  # for answers that are on their way when the server is told to stop
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def check_installed() -> None:
    """Raise UserError where the packages of the extra `review` are missing."""
    try:
        import pygments  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"The review page needs {error.name}, which is not installed. Install it with pip install 'cptlab[review]'."
        ) from None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. `port` 0: any that is free. Raises UserError where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.create_server(address[:2], family=family, reuse_port=False)
    except OSError as error:
        raise UserError(
            f"The review cannot be served at {host}, port {port} ({str(error.strerror or error).partition(' (')[0]}). Name another host= or port=, "
            "or port=0 for any that is free."
        ) from None
    return made


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine reaches the socket."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def address_of(listening: socket.socket, host: str) -> str:
    """Return the address of the first page, without its token. A host that stands for all is this machine's name."""
    found = ipaddress.ip_address(listening.getsockname()[0].partition("%")[0])
    name = socket.gethostname() if found.is_unspecified else host
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}/"


def link(address: str, reviewer: Reviewer) -> str:
    """Return a reviewer's own link, with which they go on in any browser."""
    return f"{address}return/{reviewer.secret}"


def serve(review: Review, listening: socket.socket, host: str, greet: Callable[[Reviewer], None]) -> None:
    """Serve until the process is told to stop."""
    import uvicorn

    from cptlab.review.app import ReviewApp

    local = is_local(listening)
    token, hosts = (None, {*LOCAL_NAMES, host.lower()}) if local else (review.token, None)
    app = ReviewApp(review, token, hosts, greet).asgi
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listening])

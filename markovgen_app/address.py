"""Whether the app can listen where it is told to, asked before the weights are loaded."""

from __future__ import annotations

import errno
import socket

from .errors import UserError

_LOCAL = "127.0.0.1"  # where Gradio looks whether a port is free, whatever the host
_OTHER_PORT = "choose another port (PORT=7861 make run, --port 7861, or MARKOVGEN_PORT=7861)"


def check_address(host: str, port: int) -> None:
    """Make sure that a server can listen there.

    Raises:
        UserError: the port is taken or not allowed, or the host is not of this machine.
    """
    for name in dict.fromkeys((_LOCAL, host.strip("[]"))):
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            family, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)  # of localhost, the older one
            with socket.socket(family) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"Something listens on port {port} already, perhaps this app: end it, or {_OTHER_PORT}."
                ) from None
            if error.errno == errno.EACCES:
                raise UserError(f"Only the superuser may listen on port {port}: {_OTHER_PORT}.") from None
            raise UserError(
                f"This machine cannot listen on {name} ({error.strerror or error}): name one of its own addresses"
                " (HOST=… make run, --host, or MARKOVGEN_HOST), such as 127.0.0.1."
            ) from None

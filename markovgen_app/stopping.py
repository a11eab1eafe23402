"""Servers that end in good order when they are told to."""

from __future__ import annotations

import signal


def end_by_sigterm() -> None:
    """Let SIGTERM, by which containers and service managers end a process, do what Ctrl+C does.

    Without it the process dies on the spot, its last answers not sent; as the first process of a container it would not
    even hear it. To be called in the main thread.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)

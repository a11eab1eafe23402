"""The one exception that people are meant to read."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input or a missing resource, said in one line that tells the person what to do next.

    The app shows the message next to the control, the command line prints it on standard error and exits with
    status 2, and the Python API raises it.

    Attributes:
        field: of the request that is wrong, if one is.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def first_line(error: Exception) -> str:
    """What an error of a library says, cut to its first line and 150 characters; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:150]

"""The one exception that people are meant to read."""


class UserError(ValueError):
    """Bad input or a missing resource, said in one line that tells the person what to do next.

    The app shows the message next to the control, the command line prints it on standard error and exits with
    status 2, and the Python API raises it.
    """

"""How tests run the command line."""

from __future__ import annotations

import pytest

from markovgen_app.cli import main


def run_command(*arguments: object) -> int:
    """The exit status of `markovgen ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    return int(ended.value.code or 0)

"""Entry point of `make run` and of Hugging Face Spaces: settings → runtime → page → launch."""

import sys

from markovgen_app.address import check_address
from markovgen_app.errors import UserError
from markovgen_app.runtime import load_runtime
from markovgen_app.settings import load_settings
from markovgen_app.stopping import end_by_sigterm
from markovgen_app.ui.build import build, launch


def main() -> None:
    """Serves the app; on bad settings or a missing checkpoint, says what to do in one line and exits with status 2."""
    end_by_sigterm()
    try:
        settings = load_settings()
        check_address(settings.host, settings.port)
        print("Loading the weights …", file=sys.stderr)
        launch(build(load_runtime(settings, every_gpu=True), settings), settings)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

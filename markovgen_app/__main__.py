"""`python -m markovgen_app` is the `markovgen` command."""

from .cli import main

if __name__ == "__main__":
    main()

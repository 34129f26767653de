"""The command: `python -m text_embeddings_inference` is `text-embeddings-router`."""

import sys

from .process import prepare


def main() -> int:
    """Returns the exit status."""
    prepare()
    from .cli import main as command  # takes a third of a second, in which signals come too

    return command()


if __name__ == "__main__":
    sys.exit(main())

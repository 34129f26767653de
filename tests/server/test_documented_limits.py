"""What docs/reliability.md and SECURITY.md say of limits that are no options is what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from text_embeddings_inference.server import connections
from text_embeddings_inference.server.http import counting, parser, sender, timeouts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


@pytest.mark.parametrize(
    "said",
    [
        f"| request line and headers | {parser.MAX_HEAD >> 10} KiB | 431 |",
        f"| a TLS handshake | {timeouts.HANDSHAKE_S:.0f} s |",
        f"for each {timeouts.STRIDE >> 10} KiB | `--client-timeout`",
        f"`--client-timeout`, and a second for each {timeouts.LOWEST_RATE >> 10} KiB",
        f"on {connections.PROBES} more connections",
        f"| connections of the metrics port | {connections.METRICS_CONNECTIONS}, and {connections.PROBES} more |",
        f"where it allows fewer than {connections.FEWEST_CONNECTIONS} the start ends",
        f"{sender.MOST_UNSENT >> 10} KiB unsent",
        f"or {counting.FEW:,} where that is less",
        f"{counting.MOST_VALUES:,} numbers",
    ],
)
def test_reliability_page(said: str) -> None:
    assert said in PAGE


def test_security_page() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    assert f"{parser.MAX_HEAD >> 10} KiB of headers" in page
    assert "no `Host` or two (400)" in page


def test_held_descriptors_are_those_of_the_page() -> None:
    assert connections.HELD_FILES == 16
    assert "Sixteen descriptors are held back" in PAGE

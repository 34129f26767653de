"""Measures what else runs offline on a local folder: the same texts, the same run. See bench/README.md."""

"""How Sphinx builds the pages (make docs)."""

project = "Text Embeddings Inference in Python"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # links to headings are checked
smartquotes = False  # two hyphens are two hyphens
html_theme = "furo"
html_title = project
html_show_copyright = False
html_show_sphinx = False

"""Where a model's files come from: a folder, the Hub's cache, or the Hub, of which only what is needed is fetched."""

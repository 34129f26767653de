"""A request's life between the wire and the engine: limits, tokens, the queue, the batches, and where the time went."""

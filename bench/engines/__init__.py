"""The engines beside each other in one process, without server and tokenizer."""

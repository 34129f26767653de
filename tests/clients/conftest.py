from importlib.util import find_spec

# The clients are in an environment of their own (`make test-clients`); `make test` goes past them.
collect_ignore = [] if find_spec("openai") and find_spec("langchain_huggingface") else ["test_clients.py"]

"""The gRPC API of text-embeddings-inference, beside HTTP in one process. Imported only if `--grpc-port` is given."""

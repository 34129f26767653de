"""Text Embeddings Inference: a fast server and library for embedding, reranking, sparse and classification models."""

"""bge-serve: BGE embedders and rerankers on Ray Serve, composed into one search service."""

"""Encoders and their runtimes, the store (LanceDB), the searcher (FAISS) and the pipeline that builds and refreshes."""

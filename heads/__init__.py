"""Everything that predicts from embeddings: kNN, linear, MLP and ensemble heads, calibration, metrics, storage."""

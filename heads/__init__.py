"""Everything that predicts from embeddings: kNN, linear and MLP heads, calibration, metrics. Not built yet."""

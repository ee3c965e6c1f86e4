"""Fine-tuning of the comparator: networks, recipes, training loop, checkpoints, run folders."""

"""Training: encode and mask, batches, the one loop, checkpoints."""

"""Runtimes for a trained model's graph: one module each, with `FILE`, `PRECISIONS`, `save` and `load`."""

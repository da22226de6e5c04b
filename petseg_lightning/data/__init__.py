"""Pets on disk to batches."""

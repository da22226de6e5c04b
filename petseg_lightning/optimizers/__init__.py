"""Optimizers and schedules that a library does not have as they are needed."""

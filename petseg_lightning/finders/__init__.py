"""Values that are measured before a training."""

"""Losses: (logits, masks) -> scalar, in plain PyTorch."""

"""Networks: images (B, 3, H, W) -> logits (B, K, H, W), in plain PyTorch."""

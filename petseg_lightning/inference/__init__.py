"""What a trained model is on disk, and how it comes back."""

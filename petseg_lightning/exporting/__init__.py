"""Trained models in forms that others read."""

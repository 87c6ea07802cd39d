"""Exported files beside PyTorch: the same results, the same scores, and what they cost."""

"""Evaluation on test images: metrics, baselines, pseudo-defects and diagnostics."""

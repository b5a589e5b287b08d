"""Measurements: accuracy and speed across the dial, calibration of profiles, and training."""

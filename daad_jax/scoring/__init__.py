"""Scores of images by trained networks: the table of scores, calibration, scorer, detector."""

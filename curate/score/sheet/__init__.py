"""Calibration sheets: what a score looks like from its lowest to its highest values, on one page."""

"""Experiments: rules over columns, selections, funnels."""

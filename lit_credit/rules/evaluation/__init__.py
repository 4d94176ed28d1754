"""Validation and test of a rule."""

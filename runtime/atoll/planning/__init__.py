"""Predicts how a job would run on a network before anybody pays for it. Pure functions.

docs/planning.md has the model as formulas, and what was fitted.
"""

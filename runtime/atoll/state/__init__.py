"""Shared state: what a joiner must have before it takes part, and how it gets it."""

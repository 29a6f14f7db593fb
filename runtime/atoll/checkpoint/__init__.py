"""Durable checkpoints of the shared state: written in the background, verified when read."""

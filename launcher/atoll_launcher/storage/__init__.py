"""A job's checkpoints, looked at and exported."""

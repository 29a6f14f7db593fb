"""Elastic islands: data, pipeline and ZeRO parallelism whose bits no loss of a worker changes."""

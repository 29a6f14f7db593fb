"""A seeded simulation: many real machines, one modelled network, one process, no clock.

    python -m atoll.sim --seed 7 --trace

The coordinator's and the peers' machines are the real ones; engines, links and streams are models
(`engine`, `network`). Everything that happens follows from the seed.
"""

"""Collectives on tensors: what they take (`tensors`, `options`), ops in flight (`in_flight`,
`handle`), and the session's methods (`calls`, `moves`, `pairs`)."""

"""Certificates and tokens, as commands."""

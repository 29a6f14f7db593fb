"""Who belongs to a job: its authority, certificates, join tokens. docs/security.md."""

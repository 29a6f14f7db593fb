"""What an operator asks of one island: drain, kill, revoke, logs."""

"""The command line of atoll: start islands, supervise them, show what the job does."""

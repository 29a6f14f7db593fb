"""What a running job tells, shown: events, status, top, links."""

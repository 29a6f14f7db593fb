"""What people and their tools see of a job over HTTP: metrics, their discovery, a page."""

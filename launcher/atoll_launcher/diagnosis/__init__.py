"""`atoll doctor`: what is wrong on the way to a job."""

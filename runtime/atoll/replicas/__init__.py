"""Data parallelism with a commit for each step: replicas come and go, the step goes on."""

"""The islands of this machine: started, supervised, and what a job needs around them."""

"""`atoll chaos`: faults in one's own job."""

"""`atoll plan`: how fast they would."""

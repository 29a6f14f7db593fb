"""`atoll bench`: how fast islands exchange."""

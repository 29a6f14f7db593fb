"""`atoll up`: a whole job over ssh."""

"""The membership protocol as pure state machines: no socket, no clock, no thread.

`messages` holds the words both sides speak, `coordinator` and `peer` the two machines.
"""

"""Messages and services of the control plane, generated from `proto/atoll/pb` by `make proto`."""

"""The control plane's shells: gRPC around the machines of `atoll.membership`."""

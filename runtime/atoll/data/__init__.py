"""Which samples an island trains on: the ledger, the order, the batches."""

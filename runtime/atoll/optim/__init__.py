"""Inner optimizers that torch does not have; any torch optimizer can be the inner one."""

"""Everything that knows Ray: starting it, unit tasks, the driver, the supervisor and the coordinator."""

"""Stored procedures: their files, what stands in the warehouse, syncing and calling them."""

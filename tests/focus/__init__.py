"""FOCUS: generated rows of every source, and the FinOps Foundation's validator over what becomes of them."""

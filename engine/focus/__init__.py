"""FOCUS, the FinOps Open Cost and Usage Specification: its columns, its rules, our costs as its charges."""

"""The embedded BigQuery: local-bigquery on DuckDB, started by `python -m cluster.embedded`.

Nothing is imported here, so that asking for the package costs neither DuckDB nor the `local` extra.
"""

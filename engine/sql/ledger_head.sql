-- Where one table stands: its highest committed version (on every row), everything above it, and the latest
-- committed and failed row of each day asked for. One row more keeps the version known when nothing matches.
SELECT
  day, table_version, attempt, intent_id, state, job_id, content_hash, schema_version, row_count, provisional,
  pipeline, run_id, artifact_uri,
  IFNULL(MAX(IF(state = 'COMMITTED', table_version, NULL)) OVER (), 0) AS head_version
FROM org_meta_partitions
WHERE org_slug = @org_slug AND dataset = @dataset AND table_name = @table_name
QUALIFY
  table_version > head_version
  OR (
    day IN UNNEST(@days)
    AND state IN ('COMMITTED', 'FAILED')
    AND ROW_NUMBER() OVER (PARTITION BY day, state ORDER BY table_version DESC, attempt DESC) = 1
  )
  OR ROW_NUMBER() OVER (ORDER BY table_version DESC) = 1

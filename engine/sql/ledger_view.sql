-- What is published between two days: the latest committed and the latest failed row of each partition.
SELECT
  table_name, day, table_version, state, job_id, content_hash, row_count, provisional, run_id, artifact_uri
FROM org_meta_partitions
WHERE
  org_slug = @org_slug
  AND dataset = @dataset
  AND table_name IN UNNEST(@tables)
  AND day BETWEEN @first_day AND @last_day
  AND state IN ('COMMITTED', 'FAILED')
QUALIFY
  ROW_NUMBER() OVER (PARTITION BY table_name, day, state ORDER BY table_version DESC, attempt DESC) = 1

"""Google Cloud: the billing export in a customer's BigQuery, read as it is found and made into exact rows."""

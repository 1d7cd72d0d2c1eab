"""Pages of the providers' usage reports, decoded into Arrow columns exactly and by name."""

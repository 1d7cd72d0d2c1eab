"""SaaS subscriptions: plans as they are agreed, their terms, and what each day of a term costs."""

"""Who is in the cluster, and where the copies belong: decisions, without waiting."""

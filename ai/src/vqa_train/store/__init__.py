"""The feature store: committed Parquet shards per feature set, failures, snapshots; no torch anywhere below here."""

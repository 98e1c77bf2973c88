"""Feature files that other tools wrote (Parquet, CSV, npz, .mat), read in blocks of rows."""

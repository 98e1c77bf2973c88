"""import-features: features and labels of other tools into a store."""

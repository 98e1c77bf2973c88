"""Where a model comes from: run, feature sets, shards, videos and weights, each checked as far as it is at hand."""

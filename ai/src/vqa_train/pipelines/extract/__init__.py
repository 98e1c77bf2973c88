"""extract-features: what is to do, decoding and backbones, committed shards."""

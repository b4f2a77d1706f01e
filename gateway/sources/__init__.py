"""Where images come from. Every kind of source ends as a `SourceImage`: a configuration and layers as blobs."""

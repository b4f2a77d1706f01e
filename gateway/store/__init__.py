"""What the gateway keeps on disk: the image store, cached layers, credentials, and the locks between processes."""

"""What a client and the service send each other, and how each end proves who it is."""

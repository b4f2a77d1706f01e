"""Image file formats. Each is made from the one tar stream of `gateway.flatten`, and checks what it made."""

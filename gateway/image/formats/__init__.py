"""Image file formats. Each is made from the one tar stream of `gateway.image.flatten`, and checks what it made."""

"""The image gateway, room by room: image, store, sources, wire, client, service (each imports only earlier ones)."""

"""File systems in disk images of virtual machines, read in user space: the kernel mounts nothing that a user made."""

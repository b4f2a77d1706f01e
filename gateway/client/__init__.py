"""The client: `udi`, and the calls that the submit filter and `udi-admin` make."""

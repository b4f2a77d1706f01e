"""What commands share: how each begins, and how it shows things to a person."""

"""`make soak`: whole machines under random jobs, faults and kills for an hour, with what must hold whatever happens."""

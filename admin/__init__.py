"""What an operator runs. The one room that knows every workload manager and every machine."""

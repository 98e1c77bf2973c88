"""What the commands do: each file wires the layers below into one job, takes a frozen config and returns a report."""

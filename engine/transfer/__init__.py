"""Moving slices of a batch to and from many peers."""

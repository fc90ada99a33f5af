"""What Python programs use: a blocking client, one to await, and an executor of functions on the grid."""

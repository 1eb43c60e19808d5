"""The low-level API of the original: nodes, data sets and planners over the same plans."""

def range_ids(*a):
    raise NotImplementedError

"""Guards for the trainers of other libraries, each behind that library's own interface."""

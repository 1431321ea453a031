import tasks.lone_numpy  # noqa: F401  before any module here loads numpy

from . import executors as executors

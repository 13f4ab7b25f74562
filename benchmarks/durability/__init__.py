"""Whether what was acknowledged outlives the process, the node and the power: `python -m benchmarks.durability`.

`truth.py` knows what must be there, `writers.py` writes over HTTP and reads back, `victim.py` is the service and how it is struck,
`disk.py` the file system whose power is cut.
"""

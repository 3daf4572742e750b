"""What a run trains on and is judged by: the part of a training that differs between architectures.

base      what every task gives the trainer
windows   windows of a corpus in memory
streamed  windows of a corpus that is larger than the memory it may take
choose    which task a model takes, told by its class
"""

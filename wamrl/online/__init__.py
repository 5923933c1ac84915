"""What the online loop of `wamrl/train.py` holds, and how it looks at itself.

state   everything that a run carries from one iteration to the next
lines   what the console says of an iteration
look    evaluation during training, the checkpoint `best`, points of the learning curve
"""

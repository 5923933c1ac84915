"""What the online loop of `wamrl/train.py` holds, and how it looks at itself.

state   everything that a run carries from one iteration to the next
look    evaluation during training, the checkpoint `best`, points of the learning curve
"""

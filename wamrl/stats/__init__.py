"""Statistics of outcomes, on plain arrays. Imports nothing of ours; whatever SciPy has is SciPy's.

paired   one success rate; two models on the same initial states
nested   tasks -> seeds -> initial states; several tests at once
auc      does a score tell success from failure?
trend    does a series rise or fall?

SciPy's parts are named in full, because it imports each when it is used first: scipy.stats alone is
a third of the time in which a process of ours starts.
"""

CONFIDENCE = 0.95  # of every interval

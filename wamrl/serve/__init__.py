"""A saved model put to use: observations in, actions out, in this process or over a network.

saved        a run folder opened           observation  what users call images and state
policy       one episode: history, chunks  wire         msgpack with NumPy arrays, nothing else
server       openpi's protocol             client       chunks that are asked for ahead of time
"""

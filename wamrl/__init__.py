"""wamrl: improve World-Action models by online interaction.
Importing this does nothing and needs no simulator.
"""

__version__ = "0.1.0"

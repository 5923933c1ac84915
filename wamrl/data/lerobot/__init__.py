"""LeRobotDataset on disk,
read (v3.0 and v2.1) and written (v3.0) without the package of that name.
"""

from wamrl.data.lerobot.reader import LeRobotRecording, open_lerobot
from wamrl.data.lerobot.summary import inspect
from wamrl.data.lerobot.writer import write

__all__ = ["LeRobotRecording", "inspect", "open_lerobot", "write"]

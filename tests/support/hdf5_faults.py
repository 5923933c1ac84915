"""Ways in which an HDF5 file of demonstrations can be broken or hostile,
and what must be said about each.
"""

import json

import h5py
import numpy as np

from tests.support.hdf5_files import pictures


def break_file(path, how: str) -> None:
    with h5py.File(path, "a") as file:
        demo = file["data/demo_1"]
        obs = demo["obs"]
        match how:
            case "no data":
                del file["data"]
            case "no demos":
                del file["data"]
                file.create_group("data")
            case "no obs":
                del demo["obs"]
            case "no actions":
                del demo["actions"]
            case "no camera":
                del obs["agentview_image"]
            case "dataset for group":
                del file["data/demo_1"]
                file["data/demo_1"] = np.zeros(3)
            case "group for dataset":
                del demo["actions"]
                demo.create_group("actions")
            case "nan":
                demo["actions"][1, 2] = np.nan
            case "huge number":
                demo["actions"][1, 2] = 1e300
            case "short obs":
                values = obs["robot0_eef_pos"][:-1]
                del obs["robot0_eef_pos"]
                obs["robot0_eef_pos"] = values
            case "num_samples":
                demo.attrs["num_samples"] = 17
            case "num_samples array":
                demo.attrs["num_samples"] = [3, 3]
            case "text actions":
                del demo["actions"]
                demo["actions"] = np.array([[b"a"] * 7] * 3)
            case "objects":
                del demo["actions"]
                demo.create_dataset("actions", (3, 7), dtype=h5py.string_dtype())
            case "whole actions":
                values = demo["actions"][()].astype(np.int64)
                del demo["actions"]
                demo["actions"] = values
            case "float pictures":
                values = obs["agentview_image"][()] / 255
                del obs["agentview_image"]
                obs["agentview_image"] = values
            case "grey pictures":
                values = obs["agentview_image"][..., :1]
                del obs["agentview_image"]
                obs["agentview_image"] = values
            case "size":
                for part in ("obs", "next_obs"):
                    del demo[f"{part}/agentview_image"]
                    demo[f"{part}/agentview_image"] = pictures(0, 3, (10, 10))
            case "width":
                del demo["actions"]
                demo["actions"] = np.zeros((3, 6))
            case "soft link":
                del demo["actions"]
                demo["actions"] = h5py.SoftLink("/data/demo_0/actions")
            case "external link":
                del demo["actions"]
                demo["actions"] = h5py.ExternalLink("secret.hdf5", "/data/demo_0/actions")
            case "external group":
                del file["data/demo_1"]
                file["data/demo_1"] = h5py.ExternalLink("secret.hdf5", "/data/demo_0")
            case "external storage":
                del demo["actions"]
                demo.create_dataset(
                    "actions", (3, 7), np.float64, external=[("secret.bin", 0, 168)]
                )
            case "virtual":
                layout = h5py.VirtualLayout((3, 7), np.float64)
                layout[:] = h5py.VirtualSource("secret.hdf5", "actions", (3, 7))
                del demo["actions"]
                demo.create_virtual_dataset("actions", layout)
            case "absurd":
                del demo["actions"]
                demo.create_dataset("actions", (10**12, 7), np.float64, chunks=(1000, 7))
            case "unwritten":
                del demo["actions"]
                demo.create_dataset("actions", (3, 7), np.float64)
            case "unwritten pictures":
                del obs["agentview_image"]
                obs.create_dataset(
                    "agentview_image", (3, 4000, 4000, 3), np.uint8, chunks=(1, 100, 100, 3)
                )
            case "bad json":
                file["data"].attrs["env_args"] = "{" * 100_000
            case "json list":
                file["data"].attrs["env_args"] = json.dumps([1])
            case "long json":
                file["data"].attrs["env_args"] = " " * 5_000_000
            case "mask":
                del file["mask/train"]
                file["mask/train"] = np.array([b"demo_0", b"demo_77"])
            case "mask numbers":
                del file["mask/train"]
                file["mask/train"] = np.arange(3)


FAULTS = {
    "no data": "data is missing",
    "no demos": "holds no episodes",
    "no obs": "obs is missing",
    "no actions": "actions is missing or no dataset: there is dones",
    "no camera": "agentview_image is missing",
    "dataset for group": "demo_1 is not a group",
    "group for dataset": "actions is missing or no dataset",
    "nan": "demo_1/actions holds NaN",
    "huge number": "demo_1/actions holds NaN or infinity",
    "short obs": "has 2 rows, but the episode has 3 actions",
    "num_samples": "num_samples=17, but has 3 actions",
    "num_samples array": "its num_samples is not a number",
    "text actions": "numbers .* are needed",
    "objects": "not all of it was written|numbers .* are needed",
    "whole actions": "floats .* are needed",
    "float pictures": "pictures uint8",
    "grey pictures": "pictures uint8",
    "size": "pictures differ in size .10 x 10, 12 x 16.: give image_hw",
    "width": "different widths",
    "soft link": "actions is a link to elsewhere",
    "external link": "actions is a link to elsewhere",
    "external group": "demo_1 is a link to elsewhere",
    "external storage": "lies in another file",
    "virtual": "lies in another file",
    "absurd": "impossible shape .1000000000000, 7.",
    "unwritten": "not all of it was written",
    "unwritten pictures": "not all of it was written",
    "bad json": "env_args is not readable JSON",
    "json list": "env_args is not a JSON object",
    "long json": "env_args is not a text of at most",
    "mask": "mask/train names episodes that are not there, such as 'demo_77'",
    "mask numbers": "names of episodes are needed",
}

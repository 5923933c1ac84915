"""Stand-ins for LIBERO assets that are not there: for tests of the adapter only. No number made with them is a LIBERO
result. Run as a program it fills a folder: `python tests/support/libero_placeholders.py FOLDER`.

`fill(folder)` makes every file that an XML in the folder names and that is missing, and an XML of its own for every
scene and object of the five suites that has none. A missing mesh becomes the collision boxes of its body (a
basket stays open), else a small box; a missing texture becomes a chequerboard whose colour depends on its name.
"""

# ruff: noqa: E501  (lines of XML)
from __future__ import annotations

import re
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import numpy as np

# some official files, if at hand
PARTIAL = Path(__file__).parents[3] / "shared" / "libero_assets" / "assets.tar.xz"
MARK = ".filled-1"  # change it when what `fill` makes changes
GEOM = 'density="100" friction="0.95 0.3 0.1" solimp="0.998 0.998 0.001" solref="0.001 1"'
SITES = """<site rgba="0 0 0 0" size="0.005" pos="0 0 {low}" name="bottom_site"/>
<site rgba="0 0 0 0" size="0.005" pos="0 0 {high}" name="top_site"/>
<site rgba="0 0 0 0" size="0.005" pos="{side} {side} 0" name="horizontal_radius_site"/>"""

# folder -> name -> half sizes in metres of a box (those that LIBERO turns upright by itself lie here on their side)
BOXES: dict[str, dict[str, tuple[float, float, float]]] = {
    "stable_hope_objects": {
        "alphabet_soup": (0.033, 0.033, 0.042),
        "bbq_sauce": (0.03, 0.07, 0.02),
        "butter": (0.05, 0.012, 0.022),
        "chocolate_pudding": (0.045, 0.03, 0.014),
        "cookies": (0.04, 0.02, 0.06),
        "cream_cheese": (0.05, 0.012, 0.022),
        "ketchup": (0.03, 0.07, 0.02),
        "milk": (0.035, 0.09, 0.035),
        "new_salad_dressing": (0.03, 0.07, 0.02),
        "orange_juice": (0.035, 0.09, 0.035),
        "salad_dressing": (0.03, 0.07, 0.02),
        "tomato_sauce": (0.033, 0.033, 0.042),
    },
    "stable_scanned_objects": {
        "akita_black_bowl": (0.05, 0.02, 0.05),
        "chefmate_8_frypan": (0.1, 0.02, 0.1),
        "plate": (0.09, 0.008, 0.09),
        "glazed_rim_porcelain_ramekin": (0.04, 0.02, 0.04),
        "white_bowl": (0.05, 0.02, 0.05),
    },
    "turbosquid_objects": {
        "black_book": (0.07, 0.1, 0.015),
        "moka_pot": (0.04, 0.04, 0.07),
        "porcelain_mug": (0.04, 0.04, 0.045),
        "red_coffee_mug": (0.04, 0.04, 0.045),
        "white_yellow_mug": (0.04, 0.04, 0.045),
        "wine_bottle": (0.03, 0.03, 0.1),
        "yellow_book": (0.07, 0.1, 0.015),
    },
}
# path -> XML of the body's inside; WALLED(half width, half depth, height) are open boxes, the rest is in `FIXTURES`
WALLED = {
    "stable_scanned_objects/basket": (0.075, 0.075, 0.15, "contain_region"),
    "turbosquid_objects/wooden_tray": (0.12, 0.16, 0.05, "contain_region"),
    "turbosquid_objects/desk_caddy": (
        0.08,
        0.2,
        0.1,
        "back_contain_region front_contain_region left_contain_region right_contain_region",
    ),
}
SCENES = {
    "libero_tabletop_base_style": "table",
    "libero_kitchen_tabletop_base_style": "table",
    "libero_study_base_style": "study_table",
    "libero_living_room_tabletop_base_style": "living_room_table",
    "libero_floor_base_style": "floor",
}


def assets_for_tests() -> Path:
    """A complete folder: the official files at hand, if any, and placeholders. Made once per machine and version."""
    folder = (
        Path(tempfile.gettempdir())
        / f"wamrl-libero-{'partial' if PARTIAL.exists() else 'none'}-assets"
    )
    if not (folder / MARK).exists():
        folder.mkdir(exist_ok=True)
        if PARTIAL.exists():
            with tarfile.open(PARTIAL) as tar:
                # refuses paths and links that leave the folder
                tar.extractall(folder, filter="data")
        fill(folder)
        (folder / MARK).touch()
    return folder


def fill(folder: Path) -> list[str]:
    """Add what is missing; the files made, relative to `folder`."""
    made: list[str] = []
    for name, text in xmls().items():
        if not (folder / name).exists():
            _write(folder / name, text.encode(), made, folder)
    for xml in sorted(folder.rglob("*.xml")):
        root = ET.parse(xml).getroot()
        for node in root.iter():
            if not (file := node.get("file")) or (path := (xml.parent / file).resolve()).exists():
                continue
            data = png(path.name) if path.suffix == ".png" else mesh(root, node, path.suffix)
            _write(path, data, made, folder)
    for style in (
        "light-gray-floor-tile",
        "seamless_wood_planks_floor",
        "gray_ceramic_tile",
        "light-gray-plaster",
        "yellow_linen_wall_texture",
    ):
        if not (path := folder / "textures" / f"{style}.png").exists():
            _write(path, png(style), made, folder)
    return made


def _write(path: Path, data: bytes, made: list[str], folder: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    made.append(
        str(path.relative_to(folder.resolve() if path.is_relative_to(folder.resolve()) else folder))
    )


# ---- meshes and textures
def numbers(node: ET.Element, name: str, default: str) -> np.ndarray:
    return np.array([float(x) for x in (node.get(name) or default).split()])


def rotation(quat: np.ndarray) -> np.ndarray:
    """The matrix, (3, 3), of a quaternion w, x, y, z."""
    w, x, y, z = quat / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ]
)


def mesh(root: ET.Element, asset: ET.Element, suffix: str) -> bytes:
    """The collision boxes of the body that shows this mesh, or a box of 10 cm where there are none."""
    boxes = [0.05 * CORNERS]
    for body in root.iter("body"):
        shown = [g for g in body.findall("geom") if g.get("mesh") == asset.get("name")]
        solid = [
            g for g in body.findall("geom") if g.get("type") == "box" and g.get("group") == "0"
        ]
        if shown and solid:
            back = rotation(numbers(shown[0], "quat", "1 0 0 0")).T
            offset, scale = numbers(shown[0], "pos", "0 0 0"), numbers(asset, "scale", "1 1 1")
            boxes = [
                (
                    CORNERS * numbers(g, "size", "") @ rotation(numbers(g, "quat", "1 0 0 0")).T
                    + numbers(g, "pos", "0 0 0")
                    - offset
                )
                @ back.T
                / scale
                for g in solid
            ]
            break
    vertices = np.concatenate(boxes)
    faces = np.concatenate([FACES + 8 * i for i in range(len(boxes))])
    return {".msh": msh, ".stl": stl, ".obj": obj}[suffix](vertices, faces)


def msh(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    """MuJoCo's own binary format: counts, vertices, normals (none), texture coordinates, faces."""
    counts = np.array([len(vertices), 0, len(vertices), len(faces)], np.int32)
    texture = (vertices[:, :2] * 5).astype(np.float32)
    return (
        counts.tobytes()
        + vertices.astype(np.float32).tobytes()
        + texture.tobytes()
        + faces.astype(np.int32).tobytes()
    )


def stl(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    rows = np.zeros(
        len(faces), np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    )
    rows["corners"] = vertices[faces]
    return b"\0" * 80 + np.array([len(faces)], "<u4").tobytes() + rows.tobytes()


def obj(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    lines = [f"v {x} {y} {z}" for x, y, z in vertices] + [f"f {a} {b} {c}" for a, b, c in faces + 1]
    return "\n".join(lines).encode()


def png(name: str, size: int = 64) -> bytes:
    """A chequerboard, RGB, whose colour depends on the name."""
    colour = np.random.default_rng(zlib.crc32(name.encode())).integers(70, 220, 3)
    dark = (np.add.outer(np.arange(size) // 8, np.arange(size) // 8) % 2)[..., None]
    rows = np.where(dark, colour * 0.85, colour).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = size.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


# ---- XMLs for scenes and objects that have none
def box(half: tuple[float, ...], pos: tuple[float, ...] = (0, 0, 0)) -> str:
    """A box that collides and one that is seen."""
    at = f'type="box" size="{half[0]} {half[1]} {half[2]}" pos="{pos[0]} {pos[1]} {pos[2]}" rgba="{{rgba}}"'
    return f'<geom {at} {GEOM} group="0"/><geom {at} density="0" group="1" contype="0" conaffinity="0"/>\n'


def site(name: str, half: tuple[float, ...], pos: tuple[float, ...]) -> str:
    where = f'pos="{pos[0]} {pos[1]} {pos[2]}" size="{half[0]} {half[1]} {half[2]}"'
    return f'<site type="box" {where} quat="1 0 0 0" group="0" rgba="0 0 0 0" name="{name}"/>\n'


def thing(name: str, inside: str, low: float, high: float, side: float) -> str:
    """An object's XML around what its body holds."""
    r, g, b = np.random.default_rng(zlib.crc32(name.encode())).uniform(0.2, 0.9, 3)
    inside = inside.replace("{rgba}", f"{r:.2f} {g:.2f} {b:.2f} 1")
    sites = SITES.format(low=low, high=high, side=side)
    return f'<mujoco model="{name}"><asset/><worldbody><body><body name="object">\n{inside}</body>\n{sites}\n</body></worldbody></mujoco>'


def walled(width: float, depth: float, height: float, regions: str) -> str:
    wall, half = 0.005, height / 2
    parts = box((width, depth, wall), (0, 0, wall))
    for x in (-width, width):
        parts += box((wall, depth, half), (x, 0, half))
    for y in (-depth, depth):
        parts += box((width, wall, half), (0, y, half))
    names = regions.split()
    step = 2 * depth / len(names)
    for i, name in enumerate(names):
        parts += site(
            name,
            (width * 0.85, step * 0.42, half * 0.9),
            (0, (i + 0.5) * step - depth, half + wall),
        )
    return parts


def cabinet() -> str:
    parts = '<body name="base">' + site("top_side", (0.12, 0.09, 0.002), (0, 0.015, 0.222))
    for half, pos in (
        ((0.125, 0.095, 0.002), (0, 0.015, 0.219)),
        ((0.005, 0.095, 0.105), (-0.115, 0.015, 0.112)),
        ((0.005, 0.095, 0.105), (0.115, 0.015, 0.112)),
        ((0.12, 0.003, 0.105), (0, 0.11, 0.112)),
        ((0.12, 0.09, 0.003), (0, 0.015, 0.004)),
    ):
        parts += box(half, pos)
    for level, z in (("top", 0.183), ("middle", 0.113), ("bottom", 0.045)):
        parts += (
            f'<body name="cabinet_{level}"><inertial pos="0 0 0" mass="3" diaginertia="1 1 1"/>'
        )
        parts += f'<joint name="{level}_level" type="slide" axis="0 1 0" limited="true" range="-0.16 0.01" damping="50"/>'
        parts += site(f"{level}_region", (0.1, 0.075, 0.03), (0, 0.011, z))
        for half, pos in (
            ((0.105, 0.003, 0.03), (0, -0.072, z)),
            ((0.105, 0.08, 0.003), (0, 0.01, z - 0.028)),
            ((0.045, 0.008, 0.008), (0, -0.1, z)),
        ):
            parts += box(half, pos)
        parts += "</body>"
    return parts + "</body>\n"


def microwave() -> str:
    parts = '<body name="base">' + site("top_side", (0.12, 0.08, 0.005), (0, 0.01, 0.2))
    parts += site("heating_region", (0.12, 0.08, 0.08), (0, 0.01, 0.096))
    for half, pos in (
        ((0.15, 0.1, 0.01), (0, 0, 0.01)),
        ((0.15, 0.1, 0.01), (0, 0, 0.19)),
        ((0.01, 0.1, 0.09), (-0.14, 0, 0.1)),
        ((0.03, 0.1, 0.09), (0.12, 0, 0.1)),
        ((0.14, 0.01, 0.09), (0, 0.1, 0.1)),
    ):
        parts += box(half, pos)
    parts += '<body name="door" pos="-0.15 -0.105 0.1"><inertial pos="0.12 0 0" mass="1" diaginertia="0.1 0.1 0.1"/>'
    parts += '<joint type="hinge" axis="0 0 1" limited="true" name="microjoint" range="-2.094 0" damping="0.5"/>'
    return parts + box((0.12, 0.005, 0.08), (0.12, -0.01, 0)) + "</body></body>\n"


def stove() -> str:
    parts = '<body name="base"><body name="burner" pos="0.15 0 0">' + site(
        "cook_region", (0.075, 0.075, 0.0025), (0, 0, 0)
    )
    parts += (
        box((0.095, 0.095, 0.02))
        + '<site name="burner" pos="0 0 0.022" size="0.06 0.0005" type="cylinder" '
    )
    parts += 'rgba="0.9 0.05 0.05 1"/></body><body name="button"><inertial pos="0 0 0" mass="3" diaginertia="1 1 1"/>'
    parts += '<joint name="button" type="hinge" axis="0 0 1" limited="true" range="-0.005 2.1" damping="1"/>'
    return (
        parts
        + box((0.034, 0.034, 0.006), (0, 0, 0.006))
        + box((0.008, 0.03, 0.012), (0, 0, 0.024))
        + "</body></body>\n"
    )


def shelf() -> str:
    parts = site("top_side", (0.1, 0.1, 0.002), (0, 0, 0.25)) + site(
        "top_region", (0.1, 0.1, 0.05), (0, 0, 0.19)
    )
    parts += site("bottom_region", (0.1, 0.1, 0.05), (0, 0, 0.07))
    for z in (0.005, 0.125, 0.245):
        parts += box((0.12, 0.12, 0.005), (0, 0, z))
    return (
        parts
        + box((0.005, 0.12, 0.12), (-0.12, 0, 0.125))
        + box((0.005, 0.12, 0.12), (0.12, 0, 0.125))
    )


def rack() -> str:
    return (
        site("top_region", (0.1, 0.022, 0.0025), (0, 0, 0.2))
        + box((0.1, 0.06, 0.01), (0, 0, 0.19))
        + box((0.02, 0.05, 0.09), (0, 0, 0.09))
    )


def scene(table: str) -> str:
    """Floor, one piece of furniture with its top where LIBERO expects it, two lights, four cameras."""
    floor = '<geom group="1" name="floor" size="3 3 .125" type="plane" material="floorplane"/>'
    body = (
        f'<body name="floor">{floor}</body>' if table in ("floor", "living_room_table") else floor
    )
    if table == "table":
        body += '<body name="table" pos="0 0 0.4"><geom size="0.4 0.4 0.4" type="box" group="0" name="table_collision"/>'
        body += '<geom size="0.4 0.4 0.4" type="box" conaffinity="0" contype="0" group="1" name="table_visual" rgba="0.6 0.45 0.3 1"/>'
        body += '<site pos="0 0 0.4" name="table_top" size="0.001" rgba="0 0 0 0"/>'
        for leg in range(1, 5):
            body += f'<geom size="0.05 0.1" type="cylinder" conaffinity="0" contype="0" group="1" name="table_leg{leg}_visual"/>'
        body += "</body>"
    elif table != "floor":
        top, size = (0.867, "0.5 0.6 0.02") if table == "study_table" else (0.43, "0.35 0.8 0.02")
        shape = f'<geom type="box" size="{size}" pos="0 0 {top - 0.02}" rgba="0.6 0.45 0.3 1" group="{{}}"/>'
        body += f'<body name="{table}">{shape.format(0)}{shape.format(1)}</body>'
    cameras = "".join(
        f'<camera mode="fixed" name="{name}" pos="0.5 0 1.35" quat="0.653 0.271 0.271 0.653"/>'
        for name in ("frontview", "birdview", "agentview", "sideview")
    )
    light = '<light diffuse=".8 .8 .8" dir="0 -.15 -1" pos="1 1 4" castshadow="false"/>'
    textures = '<texture file="../textures/floor.png" type="2d" name="texplane"/><texture file="../textures/wall.png" type="2d" name="tex-wall"/>'
    material = '<material name="floorplane" texrepeat="3 3" texture="texplane" texuniform="true"/>'
    return f'<mujoco model="{table}"><asset>{textures}{material}</asset><worldbody>{body}{light}{cameras}</worldbody></mujoco>'


def xmls() -> dict[str, str]:
    """Every XML that the five suites open, by its path in the assets folder."""
    found = {f"scenes/{name}.xml": scene(table) for name, table in SCENES.items()}
    for folder, boxes in BOXES.items():
        for name, half in boxes.items():
            # LIBERO turns most of these by 90 degrees about x, so what becomes the height is y
            high = half[2] if folder == "turbosquid_objects" or half[0] == half[1] else half[1]
            found[f"{folder}/{name}/{name}.xml"] = thing(
                name, box(half), -high, high, max(half[0], half[2]) * 0.7
            )
    for path, (width, depth, height, regions) in WALLED.items():
        name = path.split("/")[1]
        found[f"{path}/{name}.xml"] = thing(
            name, walled(width, depth, height, regions), -0.0, height, width * 0.7
        )
    for name, inside in (
        ("white_cabinet", cabinet()),
        ("wooden_cabinet", cabinet()),
        ("microwave", microwave()),
        ("flat_stove", stove()),
    ):
        found[f"articulated_objects/{name}.xml"] = thing(name, inside, -0.0, 0.2, 0.1)
    for name, inside in (("wooden_two_layer_shelf", shelf()), ("wine_rack", rack())):
        found[f"turbosquid_objects/{name}/{name}.xml"] = thing(name, inside, -0.0, 0.2, 0.1)
    return found


if __name__ == "__main__":
    files = fill(Path(sys.argv[1]))
    kinds = {
        kind: sum(f.endswith(kind) for f in files)
        for kind in sorted({re.sub(r".*\.", ".", f) for f in files})
    }
    print(f"{len(files)} placeholders: {kinds}")

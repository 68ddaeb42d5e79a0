"""Builds the extension's zip: the add-on, Stopdown's own wheel, and the wheels of a platform that Blender's Python lacks.

    python blender_addons/build_extension.py --out dist                        for Blender 5.0 on linux-x64
    python blender_addons/build_extension.py --out dist --platform any         Stopdown's own wheel alone

The same sources and the same lock file give the same bytes. Blender's own tool checks and packs the folder (it comes with bpy);
the entries' dates are then set to one date, because the tool takes them from the file system.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATE = (2020, 1, 1, 0, 0, 0)
SOURCES = ("scenes", "generator", "trainer", "stopdown.py", "pyproject.toml", "README.md", "LICENSE")
BUNDLED = "numpy"  # Blender brings its own, and is compiled against it


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of Blender: its first version, the first after it, and its Python, as wheels are tagged."""

    least: str
    below: str
    python: str


SERIES = {
    "5.0": Series(least="5.0.0", below="5.1.0", python="311"),
    "5.2": Series(least="5.2.0", below="5.3.0", python="313"),
}
# pip's names of the platforms that Blender runs on, the most demanding first.
PLATFORMS = {
    "linux-x64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "macos-arm64": ("macosx_14_0_arm64", "macosx_13_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64"),
}
POSIX = ("linux-x64", "linux-arm64", "macos-arm64", "macos-x64")  # a dataset's lock is POSIX's; there is none on Windows


def main() -> None:
    """Build the zip that the command line asks for and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--platform", choices=(*PLATFORMS, "any"), default="linux-x64")
    parser.add_argument("--blender", choices=tuple(SERIES), default="5.0")
    parser.add_argument("--lock", action="store_true", help="write the lock file of this platform and Blender anew")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheels = [own_wheel(work)]
        if options.platform != "any":
            wheels += platform_wheels(work, options.platform, options.blender, lock=options.lock)
        print(pack(work, options.out, wheels, options.platform, options.blender))


def own_wheel(work: Path) -> Path:
    """Build Stopdown's wheel from a copy of its sources and return it with one date and one order for its entries."""
    copy, made = work / "copy", work / "made"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy2(source, copy / name)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(made), str(copy)]
    here = ["--no-build-isolation"] if find_spec("setuptools") else []  # then nothing is fetched
    subprocess.run([*words, *here], check=True)
    (wheel,) = made.glob("*.whl")
    return normalised_wheel(wheel, work)


def normalised_wheel(wheel: Path, folder: Path) -> Path:
    """Return a copy of a wheel whose bytes depend on the content alone; its RECORD is written anew, in order."""
    with zipfile.ZipFile(wheel) as opened:
        files = {name: opened.read(name) for name in opened.namelist() if not name.endswith("/")}
    record = next(name for name in files if name.endswith(".dist-info/RECORD"))
    rows = [(name, f"sha256={_digest(data)}", len(data)) for name, data in sorted(files.items()) if name != record]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
    files[record] = text.getvalue().encode()
    target = folder / wheel.name
    write_zip(target, files)
    return target


def platform_wheels(work: Path, platform: str, blender: str, *, lock: bool) -> list[Path]:
    """Return the wheels that Stopdown needs and Blender lacks, fetched by pip as the lock file pins them."""
    locked = HERE / f"wheels-{platform}-{blender}.txt"
    made = work / "wheels"
    if lock or not locked.is_file():
        requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        wanted = [*requirements["dependencies"], *_pins(requirements["optional-dependencies"]["render"], blender)]
        _download(wanted, made, platform, blender)
        lines = [f"{_requirement(wheel)} --hash=sha256:{_hex(wheel)}" for wheel in sorted(made.glob("*.whl"))]
        locked.write_text("\n".join(line for line in lines if not line.startswith(f"{BUNDLED}==")) + "\n", encoding="utf-8")
        shutil.rmtree(made)
    _download(["--require-hashes", "--no-deps", "-r", str(locked)], made, platform, blender)
    return sorted(made.glob("*.whl"))


def _pins(render: list[str], blender: str) -> list[str]:
    """Return the requirements of the `render` extra that bind this Blender's Python, but for bpy itself."""
    python = SERIES[blender].python
    version = f"{python[0]}.{python[1:]}"
    rows = [entry.partition(";") for entry in render]
    return [name.strip() for name, _, when in rows if version in when and not name.startswith("bpy")]


def _download(words: list[str], folder: Path, platform: str, blender: str) -> None:
    python = SERIES[blender].python
    tags = [word for tag in PLATFORMS[platform] for word in ("--platform", tag)]
    where = ["--python-version", python, "--implementation", "cp", "--abi", f"cp{python}", "--abi", "abi3", "--abi", "none"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
    subprocess.run([*pip, *tags, *where, *words], check=True)


def _requirement(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version}"


def pack(work: Path, out: Path, wheels: list[Path], platform: str, blender: str) -> Path:
    """Put the extension together, let Blender's tool check and pack it, and return the zip in `out`."""
    folder = work / "extension"
    shutil.copytree(HERE / "stopdown", folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy2(ROOT / "LICENSE", folder / "LICENSE")
    (folder / "wheels").mkdir()
    for wheel in wheels:
        shutil.copy2(wheel, folder / "wheels" / wheel.name)
    manifest = folder / "blender_manifest.toml"
    manifest.write_text(manifest_text(manifest.read_text(encoding="utf-8"), wheels, platform, blender), encoding="utf-8")
    version = tomllib.loads(manifest.read_text(encoding="utf-8"))["version"]
    name = f"stopdown-{version}" + ("" if platform == "any" else f"-{platform.replace('-', '_')}-blender{blender}") + ".zip"
    packed = work / "packed.zip"
    blender_tool("validate", str(folder))
    blender_tool("build", "--source-dir", str(folder), "--output-filepath", str(packed))
    with zipfile.ZipFile(packed) as opened:
        files = {entry: opened.read(entry) for entry in opened.namelist() if not entry.endswith("/")}
    out.mkdir(parents=True, exist_ok=True)
    write_zip(out / name, files)
    blender_tool("validate", str(out / name))
    return out / name


def manifest_text(text: str, wheels: list[Path], platform: str, blender: str) -> str:
    """Return the manifest with Stopdown's version, the wheels, and the Blender versions and the platform they are for."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    written = tomllib.loads(text)["version"]
    top, heading, permissions = text.replace(f'version = "{written}"', f'version = "{version}"', 1).partition("[permissions]")
    lines = [f'  "./wheels/{wheel.name}",' for wheel in wheels]
    top += "\n".join(["wheels = [", *lines, "]"]) + "\n"
    if platform == "any":
        top += f"platforms = {list(POSIX)}\n".replace("'", '"')
    else:
        series = SERIES[blender]
        top = top.replace('blender_version_min = "5.0.0"', f'blender_version_min = "{series.least}"')
        top += f'blender_version_max = "{series.below}"\nplatforms = ["{platform}"]\n'
    return f"{top}\n{heading}{permissions}"


def blender_tool(*words: str) -> None:
    """Run Blender's extension tool; end with what it said where it refuses."""
    ran = subprocess.run([sys.executable, str(extension_tool()), *words], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"Blender's extension tool refused `{words[0]}`:\n{ran.stdout}{ran.stderr}")


def extension_tool() -> Path:
    """Return Blender's own extension tool, which comes with bpy; found without importing bpy."""
    spec = find_spec("bpy")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("Blender's extension tool comes with bpy, which is not installed; run pip install '.[render]'")
    (tool,) = Path(spec.submodule_search_locations[0]).glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py")
    return tool


def write_zip(target: Path, files: dict[str, bytes]) -> None:
    """Write files as a zip in order of name, with one date and one mode."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as opened:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, DATE)
            entry.external_attr = 0o100644 << 16
            stored = zipfile.ZIP_STORED if name.endswith(".whl") else zipfile.ZIP_DEFLATED
            opened.writestr(entry, files[name], compress_type=stored)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _hex(wheel: Path) -> str:
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()

"""Adapters, datasets and backbones by hub id and revision: the real client against a server here that speaks its endpoints."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from trainer_support import adapted

from generator.recipe.backbone_grid import backbone_grid
from scenes.errors import InputError
from trainer.adapters.folder import save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.hub import locate_adapter
from trainer.backbones.load import fingerprint, load_backbone
from trainer.data import open_data

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TAG = "v1"


class Hub(BaseHTTPRequestHandler):
    """A hub with an adapter and a dataset, `me/thing`, and a backbone, `me/wan`, each with one commit, tagged v1."""

    folders: ClassVar[dict[tuple[str, str], Path]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer the questions that `snapshot_download` asks."""
        self.answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with headers alone."""
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        """Send a listing or a file."""
        path = self.path.split("?")[0]
        self.asked.append(path)
        for (kind, name), folder in self.folders.items():
            api, files = f"/api/{kind}s/{name}", ("" if kind == "model" else "/datasets") + f"/{name}/resolve/"
            if path in (f"{api}/revision/{TAG}", f"{api}/revision/{COMMIT}"):
                siblings = [{"rfilename": file} for file in self.files(folder)]
                return self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), body)
            if path == f"{api}/tree/{COMMIT}":
                return self.send(json.dumps([self.entry(folder, file) for file in self.files(folder)]).encode(), body)
            if path.startswith((f"{files}{COMMIT}/", f"{files}{TAG}/")):
                file = folder / path.removeprefix(files).split("/", 1)[1]
                if not file.is_file():
                    return self.send(b"{}", body, 404, {"X-Error-Code": "EntryNotFound"})
                data = file.read_bytes()
                return self.send(data, body, 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})
            if path.startswith((api, files)):
                return self.send(b"{}", body, 404, {"X-Error-Code": "RevisionNotFound"})
        return self.send(b"{}", body, 404, {"X-Error-Code": "RepoNotFound"})

    @staticmethod
    def files(folder: Path) -> list[str]:
        """Return the names of a folder's files."""
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    @staticmethod
    def entry(folder: Path, file: str) -> dict[str, object]:
        """Return a file's entry of a listing."""
        data = (folder / file).read_bytes()
        return {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def send(self, data: bytes, body: bool, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send a response."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, tints: Path, tiny_folder: Path) -> Iterator[str]:
    """Yield the address of a hub that has an adapter, a dataset and a backbone."""
    adapter = tmp_path_factory.mktemp("hub") / "adapter"
    save_adapter(adapter, {"transformer": adapted()}, backbone_id="tiny", step=12)
    (adapter / "evil.py").write_text("raise SystemExit('ran')")
    Hub.folders = {("model", "me/thing"): adapter, ("dataset", "me/thing"): tints, ("model", "me/wan"): tiny_folder}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def client(code: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the hub's client reads its settings when it is imported."""
    env = {**os.environ, "HF_HOME": str(place), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", **environment}
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", *(() if "HF_ENDPOINT" in environment else ("HF_ENDPOINT",))):
        if name not in environment:
            env.pop(name, None)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


READ = """
from scenes.errors import InputError
from trainer.backbones.hub import locate_adapter, locate_dataset
for name in NAMES:
    for locate in (locate_adapter, locate_dataset):
        try:
            print(locate(name))
        except InputError as error:
            print(error)
"""


def read(*names: str, place: Path, **environment: str) -> list[str]:
    """Open adapters and datasets by name in a fresh process and return what it printed: where they lie, or why not."""
    done = client(f"NAMES = {names!r}\n{READ}", place, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_adapter_and_a_dataset_come_from_the_hub_and_stay(hub: str, tmp_path: Path, tints: Path) -> None:
    names = (f"me/thing@{TAG}", "me/thing@v9", "me/other@v1", "me/thing")
    told = read(*names, place=tmp_path, HF_ENDPOINT=hub)
    adapter, dataset = Path(told[0]), Path(told[1])
    assert SavedAdapter.open(adapter).card.step == 12
    assert (adapter / "control.json").exists() and not (adapter / "evil.py").exists()  # an adapter's files, nothing else
    assert open_data(dataset).train == open_data(tints).train
    wrong = ("has no revision 'v9' of me/thing", "no repository me/other", "me/thing")
    assert all(message in line for message, line in zip([w for w in wrong for _ in (0, 1)], told[2:], strict=True)), told
    asked = len(Hub.asked)
    again = read(f"me/thing@{COMMIT}", "me/other@v1", place=tmp_path, HF_HUB_OFFLINE="1")
    assert again[:2] == told[:2] and len(Hub.asked) == asked  # a pinned one needs no network
    assert all("is not in the local hub cache and the hub cannot be reached" in line for line in again[2:])


BACKBONES = """
import torch
from diffusers import WanTransformer3DModel
from scenes.errors import InputError
from trainer.backbones.load import fingerprint, load_backbone, load_component
from trainer.backbones.weightless import weightless_pipeline
for name in NAMES:
    try:
        print(weightless_pipeline(name).transformer.config.num_layers)
        print(fingerprint(load_backbone(name).transformer))
        print(fingerprint(load_component(WanTransformer3DModel, name, "transformer", dtype=torch.float32)))
    except InputError as error:
        print(error)
"""


def test_a_backbone_comes_in_its_pinned_revision_and_stays(hub: str, tmp_path: Path, tiny_folder: Path) -> None:
    own = load_backbone(str(tiny_folder)).transformer
    expected = [str(own.config.num_layers), fingerprint(own), fingerprint(own)]

    def told(*names: str, **environment: str) -> list[str]:
        done = client(f"NAMES = {names!r}\n{BACKBONES}", tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    lines = told(f"me/wan@{TAG}", "me/wan@v9", "me/wan@main", HF_ENDPOINT=hub)
    assert lines[:3] == expected
    assert "has no revision 'v9' of me/wan" in lines[3] and "'main' is a branch" in lines[4] and len(lines) == 5
    asked = len(Hub.asked)
    assert told(f"me/wan@{COMMIT}", HF_HUB_OFFLINE="1") == expected and len(Hub.asked) == asked


def test_only_the_name_reaches_what_knows_repositories_alone(tmp_path: Path) -> None:
    card = save_adapter(tmp_path / "a", {"transformer": adapted()}, backbone_id="owner/name@v1", step=1)
    assert card.backbone.id == "owner/name@v1"
    assert "base_model: owner/name\n" in (tmp_path / "a" / "README.md").read_text()
    assert backbone_grid("Wan-AI/Wan2.1-T2V-14B-Diffusers@v1") == backbone_grid("Wan-AI/Wan2.1-T2V-14B-Diffusers") is not None


@pytest.mark.parametrize("branch", ["main", "master", "HEAD"])
def test_a_branch_is_no_pinned_revision(branch: str) -> None:
    with pytest.raises(InputError, match=f"'{branch}' is a branch"):
        locate_adapter(f"owner/name@{branch}")

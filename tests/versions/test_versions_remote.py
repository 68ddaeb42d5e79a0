"""Remotes: clone, push, pull and repair with a folder and with a server that speaks S3 on loopback."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner
from versions_remote_ops import damages, more
from versions_remote_storage import BUCKET, Storage, place_fixture, remote_fixture, storage_fixture  # noqa: F401
from versions_support import built, changed, commit_clips, folder_bytes, sha

from generator.errors import DamagedError
from generator.io.checksummed_json import canonical
from generator.remotes.base import Remote, RemoteOptions, object_file, open_remote, record_file, version_file
from generator.remotes.folder import FolderRemote
from generator.versions.check import check
from generator.versions.history.history import History
from generator.versions.sync.compare_refs import ref_data, remote_refs
from generator.versions.sync.pull import clone, pull
from generator.versions.sync.push import push
from generator.versions.sync.repair import repair, repair_all
from generator.versions.working.restore import restore
from generator.versions.working.status import status
from scenes.errors import InputError


def everything(remote: Remote) -> dict[str, bytes | None]:
    paths = [path for part in ("objects", "records", "versions", "tags") for path in remote.sizes(part)]
    return {path: remote.read(path) for path in [*paths, "head.json"]}


def spoil(remote: Remote, storage: Storage, path: str, data: bytes | None) -> None:
    """Change a file of a remote behind its back; None removes it."""
    if isinstance(remote, FolderRemote):
        file = remote.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if data is not None:
            file.write_bytes(data)
        return
    key = f"{remote.name.removeprefix(f's3://{BUCKET}/')}/.stopdown/{path}"
    if data is None:
        storage.s3.delete_object(Bucket=BUCKET, Key=key)
    else:
        storage.s3.put_object(Bucket=BUCKET, Key=key, Body=data)


def refused(call: Callable[[], object], words: str) -> None:
    """Assert that a call ends in one line that says so, and exit code 2."""
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_clone_of_what_was_pushed_is_the_dataset(tmp_path: Path, remote: Remote) -> None:
    history, clips, first = built(tmp_path / "ds", 12, lossless=True)
    history.tag("v-one")
    commit_clips(history, changed(clips, next(iter(clips)), caption="another"), "second")
    restore(history, "latest", force=True)
    seen: list[tuple[int, int]] = []
    report = push(history, remote, progress=lambda done, total: seen.append((done, total)))
    assert report.versions == (first.id, history.version().id) and seen and seen[-1][0] <= seen[-1][1]
    assert {move.name for move in report.moves} == {"head", "v-one"}
    assert damages(remote, tmp_path / "copy") == []
    done = clone(remote, tmp_path / "a clöne")
    copy = History.open(tmp_path / "a clöne")
    assert done.versions == report.versions and done.objects == report.objects and done.size_bytes == report.size_bytes
    assert folder_bytes(copy.path) == folder_bytes(history.path)
    assert check(copy).clean and status(copy, thorough=True).clean
    assert [v.id for v in copy.log()] == [v.id for v in history.log()] and copy.version("v-one") == first
    assert all(copy.store.finished(record.key) == record for _, record in clips.values())
    assert not any((copy.path / "clips" / f"{i}.mp4").samefile(history.path / "clips" / f"{i}.mp4") for i in clips)


def test_a_second_push_or_pull_moves_only_what_is_new(tmp_path: Path, remote: Remote) -> None:
    history, _, _ = built(tmp_path / "ds", 6)
    push(history, remote)
    before = everything(remote)
    again = push(history, remote)
    assert (again.versions, again.objects, again.moves) == ((), 0, ()) and everything(remote) == before
    clone(remote, tmp_path / "clone")
    copy = History(tmp_path / "clone")
    newest = more(history, 1)
    assert push(history, remote).objects == 3 + 2  # clips, a leaf, a root; the generated file and the plan are there
    assert all(everything(remote)[path] == data for path, data in before.items() if path != "head.json")
    report = pull(copy, remote)
    assert report.versions == (newest,) and report.objects == 5 and copy.refs.head() == newest
    assert status(copy, thorough=True).clean and check(copy).clean and len(folder_bytes(copy.path)) == 2 * 9 + 2
    again = pull(copy, remote)
    assert (again.versions, again.objects, again.moves) == ((), 0, ())


@pytest.mark.parametrize("part", ["leaf", "clip"])
def test_an_object_that_came_half_while_it_was_sent_is_replaced(
    tmp_path: Path, remote: Remote, storage: Storage, part: str
) -> None:
    """Another writer's torn attempt lies there after this push has looked and before it sends."""
    history, clips, _ = built(tmp_path / "ds", 6)
    record = next(iter(clips.values()))[1]
    path = object_file(history.version().manifest if part == "leaf" else record.sha256_bytes)
    whole = (history.root / path).read_bytes()

    class Torn:
        def __getattr__(self, name: str) -> object:
            return getattr(remote, name)

        def put(self, target: str, data: bytes | Path) -> bool:
            if target == path:
                spoil(remote, storage, path, whole[: len(whole) // 2])
            return remote.put(target, data)

    push(history, Torn())
    assert remote.read(path) == whole
    assert damages(remote, tmp_path / "copy") == []


def test_references_go_forward_only(tmp_path: Path, remote: Remote) -> None:
    history, _, first = built(tmp_path / "ds", 3)
    push(history, remote)
    clone(remote, tmp_path / "other")
    other = History(tmp_path / "other")
    mine, theirs = more(history, 1), more(other, 2)
    push(other, remote)
    before = everything(remote)
    refused(lambda: push(history, remote), "diverged")
    assert everything(remote) == before
    here = folder_bytes(history.root)
    refused(lambda: pull(history, remote), "diverged")
    assert history.refs.head() == mine and folder_bytes(history.root) == here
    report = push(history, remote, force=True)
    assert [(move.name, move.before, move.after, move.relation) for move in report.moves] == [
        ("head", theirs, mine, "diverged")
    ]
    assert remote_refs(remote)["head"].version == mine and damages(remote, tmp_path / "copy") == []
    refused(lambda: pull(other, remote), "diverged")
    pull(other, remote, force=True)
    assert other.refs.head() == mine and status(other, thorough=True).clean and other.load(theirs).parents == (first.id,)


def test_what_is_ahead_stays_and_tags_do_not_jump(tmp_path: Path, remote: Remote) -> None:
    history, _, first = built(tmp_path / "ds", 3)
    push(history, remote)
    clone(remote, tmp_path / "other")
    other = History(tmp_path / "other")
    second = more(history, 1)
    history.tag("v-a", "latest~1")
    assert pull(history, remote).moves == () and history.refs.head() == second
    push(history, remote)
    assert push(other, remote).moves == () and remote_refs(remote)["head"].version == second
    other.tag("v-a")
    pull(other, remote)
    assert other.refs.head() == second
    other.tag("v-a", "latest", move=True)
    assert [move.relation for move in push(other, remote).moves] == ["forward"]
    assert pull(history, remote).moves[0].name == "v-a" and history.version("v-a").id == second
    history.tag("v-a", first.id, move=True)
    assert push(history, remote).moves == () and remote_refs(remote)["v-a"].version == second
    assert push(history, remote, force=True).moves[0].after == first.id


def test_uncommitted_work_is_not_pulled_over(tmp_path: Path, remote: Remote) -> None:
    history, clips, first = built(tmp_path / "ds", 3)
    push(history, remote)
    clone(remote, tmp_path / "other")
    other = History(tmp_path / "other")
    more(history, 1)
    push(history, remote)
    caption = other.path / "clips" / f"{next(iter(clips))}.txt"
    caption.write_text("my own words\n")
    before = folder_bytes(other.path)
    refused(lambda: pull(other, remote), "uncommitted")
    assert folder_bytes(other.path) == before and other.refs.head() == first.id
    pull(other, remote, show=False)
    assert folder_bytes(other.path) == before and other.refs.head() == history.refs.head()
    assert pull(other, remote).moves == () and folder_bytes(other.path) == before


def test_one_of_many_wins(remote: Remote) -> None:
    remote.prepare()
    digest = sha(b"x")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: remote.put(object_file(digest), b"x"), range(16))) == 1
        assert sum(pool.map(lambda i: remote.swap("head.json", None, b"%d" % i), range(16))) == 1
        old = remote.read("head.json")
        assert sum(pool.map(lambda i: remote.swap("head.json", old, b"new %d" % i), range(16))) == 1
    assert not remote.swap("head.json", old, b"late") and not remote.swap("head.json", None, b"late")
    assert str(remote.read("head.json")).startswith("b'new ")


def test_what_comes_damaged_is_not_kept(tmp_path: Path, remote: Remote, storage: Storage) -> None:
    history, clips, first = built(tmp_path / "ds", 3)
    push(history, remote)
    record = next(iter(clips.values()))[1]
    leaf = history.manifest(first).leaves[0].digest
    paths = [object_file(d) for d in (record.sha256_bytes, leaf, first.manifest, first.plans[0], *first.files.values())]
    paths += [version_file(first.id), record_file(record.key), "head.json"]
    draw = random.Random(3)
    for number, path in enumerate(paths):
        whole = remote.read(path)
        assert whole is not None
        position = draw.randrange(len(whole))
        flipped = whole[:position] + bytes([whole[position] ^ 1 << draw.randrange(8)]) + whole[position + 1 :]
        truncated = whole[: len(whole) // 2]
        for bad in (flipped, truncated, *((None,) if path not in ("head.json", record_file(record.key)) else ())):
            spoil(remote, storage, path, bad)
            folder = tmp_path / f"clone {number}"
            with pytest.raises(DamagedError) as caught:
                clone(remote, folder)
            assert "\n" not in str(caught.value)
            assert History(folder).refs.head() is None and not list(folder.glob("clips/*"))
            assert all(sha(file.read_bytes()) == file.name for file in folder.glob(".stopdown/objects/*/*"))
        spoil(remote, storage, path, whole)
        clone(remote, folder)  # goes on where the refused ones ended
        assert check(History(folder)).clean


def test_a_push_proves_what_it_sends(tmp_path: Path, remote: Remote) -> None:
    history, clips, _ = built(tmp_path / "ds", 3)
    path = history.store.path(next(iter(clips.values()))[1].sha256_bytes)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedError, match="does not match"):
        push(history, remote)
    assert remote_refs(remote) == {} and remote.sizes("versions") == {}


def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, remote: Remote, storage: Storage) -> None:
    history, _, first = built(tmp_path / "ds", 3)
    push(history, remote)
    for path in ("../evil", "/etc/passwd", "objects/../../evil", "tags/../../evil.json", "objects/ab/abcd", "lock", ""):
        for call in (
            lambda p=path: remote.read(p),
            lambda p=path: remote.put(p, b""),
            lambda p=path: remote.swap(p, None, b""),
        ):
            with pytest.raises(DamagedError, match="names no file"):
                call(path)
    for name in ("../evil", "/abs", "labels.parquet", "clips/x.mp4", ".hidden", "a\\b"):
        evil = first.model_copy(update={"files": {name: first.files["README.md"]}})
        evil = type(first).model_validate(evil.model_dump())
        spoil(remote, storage, version_file(evil.id), evil.data)
        spoil(remote, storage, "head.json", ref_data("head", evil.id))
        with pytest.raises((DamagedError, InputError)):
            clone(remote, tmp_path / "clone")
        assert not (tmp_path / "evil").exists() and not list((tmp_path / "clone").glob("clips/*"))
    spoil(remote, storage, "head.json", ref_data("head", first.id))
    spoil(remote, storage, "tags/a b.json", ref_data("a b", first.id))
    with pytest.raises(DamagedError, match="no tag"):
        clone(remote, tmp_path / "clone")


def test_a_newer_format_is_refused(tmp_path: Path, remote: Remote, storage: Storage) -> None:
    history, _, first = built(tmp_path / "ds", 3)
    push(history, remote)
    data = canonical({**first.model_dump(mode="json"), "format": 99, "novelty": 1}) + b"\n"
    spoil(remote, storage, version_file(sha(data)), data)
    spoil(remote, storage, "head.json", ref_data("head", sha(data)))
    refused(lambda: clone(remote, tmp_path / "clone"), "format 99")
    before = folder_bytes(history.root)
    refused(lambda: pull(history, remote), "format 99")
    assert folder_bytes(history.root) == before


def test_folders_that_cannot_be_remotes(tmp_path: Path) -> None:
    history, _, _ = built(tmp_path / "ds", 3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".stopdown").symlink_to(history.root)
    (tmp_path / "empty").mkdir()
    for name, words in (("none", "does not exist"), ("full/note", "is a file"), ("full", "neither"), ("linked", "symbolic")):
        refused(lambda n=name: push(history, open_remote(str(tmp_path / n))), words)
    for name, words in (
        ("none", "does not exist"),
        ("full", "is not a Stopdown"),
        ("empty", "is not a"),
        ("linked", "is not a"),
    ):
        refused(lambda n=name: pull(history, open_remote(str(tmp_path / n))), words)
        refused(lambda n=name: clone(open_remote(str(tmp_path / n)), tmp_path / "new"), words)
    assert not (tmp_path / "new").exists() and not list((tmp_path / "empty").iterdir())
    refused(lambda: push(history, open_remote(str(history.path))), "itself")
    there = open_remote(str(history.path))
    refused(lambda: clone(there, tmp_path / "full"), "not empty")
    refused(lambda: clone(there, tmp_path / "no" / "new"), "does not exist")
    clone(there, tmp_path / "clone")
    refused(lambda: clone(there, tmp_path / "clone"), "already")
    (tmp_path / "empty/.stopdown/objects").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for shard in {path.parent.name for path in history.root.glob("objects/*/*")}:
        (tmp_path / "empty/.stopdown/objects" / shard).symlink_to(tmp_path / "elsewhere")
    refused(lambda: push(history, open_remote(str(tmp_path / "empty"))), "symbolic link")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_addresses_that_cannot_be_remotes() -> None:
    for where in (
        "s3://",
        "s3://UP/x",
        "s3://a/b",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket/./b",
        "s3://bu..ket/x",
    ):
        refused(lambda w=where: open_remote(w), "cannot")
    for where, words in (("ftp://x/y", "no kind"), ("", "no name"), ("s3://key:secret@bucket/x", "no credentials")):
        refused(lambda w=where: open_remote(w), words)
    for endpoint in ("localhost:9000", "ftp://x", "http://", "http://key:secret@host"):
        refused(lambda e=endpoint: open_remote("s3://bucket/x", RemoteOptions(endpoint=e)), "endpoint")
    refused(lambda: open_remote("folder", RemoteOptions(endpoint="http://x")), "mean nothing")


def test_a_server_that_refuses(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    history, _, _ = built(tmp_path / "ds", 3)
    before = folder_bytes(history.root)
    refused(lambda: push(history, storage.remote("x", "no-such-bucket")), "no bucket 'no-such-bucket'")
    refused(lambda: pull(history, storage.remote("x", "no-such-bucket")), "no bucket 'no-such-bucket'")
    refused(lambda: pull(history, storage.remote("nothing here")), "is not a Stopdown dataset")
    storage.s3.put_object(Bucket=BUCKET, Key="taken/notes.txt", Body=b"mine")
    refused(lambda: push(history, storage.remote("taken")), "neither a Stopdown dataset nor empty")
    nobody = open_remote("s3://stopdown-tests/x", RemoteOptions(endpoint="http://127.0.0.1:9"))
    refused(lambda: push(history, nobody), "cannot be reached")
    with storage.guarded() as (key, secret):
        refused(lambda: push(history, storage.remote("guarded")), "InvalidAccessKeyId")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
        refused(lambda: push(history, storage.remote("guarded")), "SignatureDoesNotMatch")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        assert len(push(history, storage.remote("guarded")).versions) == 1
        anonymous = open_remote(f"s3://{BUCKET}/guarded", RemoteOptions(endpoint=storage.endpoint, anonymous=True))
        refused(lambda: clone(anonymous, tmp_path / "clone"), "refuses")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    refused(lambda: storage.remote("guarded"), "no credentials")
    assert folder_bytes(history.root) == before and not (tmp_path / "clone").exists()


def test_a_damaged_dataset_is_repaired_from_a_remote(tmp_path: Path, remote: Remote, storage: Storage) -> None:
    history, clips, first = built(tmp_path / "ds", 6, lossless=True)
    push(history, remote)
    records = [record for _, record in clips.values()]
    whole = folder_bytes(history.path)
    leaf = history.manifest(first).leaves[0].digest
    flipped = history.store.path(records[0].sha256_bytes)
    flipped.chmod(0o644)
    data = bytearray(flipped.read_bytes())
    data[7] ^= 4
    with flipped.open("r+b") as file:
        file.write(data)  # in place: the view in clips/ is damaged with it
    for digest in (records[1].sha256_bytes, leaf, first.manifest, next(iter(records[2].frames.values()))):
        history.store.path(digest).unlink()
    history.version_path(first.id).unlink()
    assert folder_bytes(history.path) != whole and not check(history).clean
    result, report = repair_all(history, remote)
    assert report.clean and result.left == () and len(result.repaired) == 6
    assert folder_bytes(history.path) == whole and check(history).clean
    gone, bad = records[3].sha256_bytes, records[4].sha256_bytes
    for digest in (gone, bad):
        history.store.path(digest).unlink()
    spoil(remote, storage, object_file(bad), b"not the bytes")
    (history.path / "clips" / f"{list(clips)[5]}.txt").write_text("my own words\n")
    result_once = repair(history, check(history), remote)
    assert result_once.repaired == (f".stopdown/{object_file(gone)}",)
    assert any("does not match" in damage.message for damage in result_once.left)
    assert not history.store.has(bad) and history.store.has(gone)
    assert (history.path / "clips" / f"{list(clips)[5]}.txt").read_text() == "my own words\n"


def run(name: str, *words: str) -> Result:
    """Run a command as `stopdown NAME WORDS` does, before errors become one line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(importlib.import_module(f"generator.commands.{name}").command)
    return CliRunner().invoke(app, list(words))


def test_the_commands(tmp_path: Path, place: tuple[str, RemoteOptions]) -> None:
    history, _, first = built(tmp_path / "ds", 3)
    where, options = place
    extra = ["--endpoint", options.endpoint] if options.endpoint else []
    pushed = run("push", str(history.path), where, "--json", *extra)
    assert pushed.exit_code == 0 and json.loads(pushed.output)["versions"] == [first.id]
    assert "nothing to do" in run("push", str(history.path), where, *extra).output
    assert first.short in run("clone", where, str(tmp_path / "clone"), *extra).output
    newest = more(history, 1)
    run("push", str(history.path), where, *extra)
    pulled = run("pull", str(tmp_path / "clone"), where, *extra)
    assert f"{first.short} -> {newest[:12]}" in pulled.output
    restore(history, "latest")
    assert folder_bytes(tmp_path / "clone") == folder_bytes(history.path)
    failed = run("clone", where, str(tmp_path / "clone"), *extra)
    assert isinstance(failed.exception, InputError) and "already" in str(failed.exception)

"""Building straight into S3-compatible storage: a real server that speaks S3, on loopback, sometimes with trouble before it."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from farm_proxy import Proxy, proxied
from farm_support import BLENDER, begin, farm_plan, hasty, quiet, timeless
from versions.versions_remote_storage import BUCKET, Storage, storage_fixture  # noqa: F401
from versions.versions_support import built

from generator.building.local import build
from generator.errors import RemoteError
from generator.farm.finish import finish_target
from generator.farm.target import Target, claimed_target, open_target
from generator.io.checksummed_json import sha256
from generator.recipe.plan import Plan
from generator.remotes.base import RemoteOptions, object_file, open_remote, record_file
from generator.store.objects import ClipRecord, Store
from generator.versions.history.history import History
from generator.versions.sync.compare_refs import remote_refs
from generator.versions.sync.pull import clone
from generator.versions.sync.push import push
from scenes.errors import InputError

SMALL = """
name = "small"
seed = 2
[video]
width = 64
height = 64
[render]
samples = 4
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [3]
scenes_per_layer = 1
frames = [1]
[[pyramid]]
axes = ["aperture"]
family = ["depth_row"]
layers = [3]
scenes_per_layer = 1
frames = [1]
"""
PLAN = farm_plan(SMALL)


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"s3://{BUCKET}/farms of {tmp_path.name}/é"


@pytest.fixture
def proxy(storage: Storage) -> Iterator[Proxy]:
    with proxied(storage.endpoint) as running:
        yield running


def stopdown(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process; return its exit code."""
    import stopdown as program

    monkeypatch.setattr(sys, "argv", ["stopdown", *words])
    try:
        program.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def fill(target: Target, folder: Path, *, still: int = 50) -> Store:
    """Put a clip of random bytes for every id of the plan into a scratch store, with a still of so many bytes."""
    begin(target)
    scratch, rng = Store(folder), random.Random(4)
    for clip_id in target.plan.clip_by_id:
        data = rng.randbytes(300)
        record = ClipRecord(
            key=target.keys[clip_id],
            sha256_bytes=scratch.put(data),
            sha256_frames=sha256(data),
            size_bytes=len(data),
            frames={"0000.exr": scratch.put(rng.randbytes(still))},
            blender=BLENDER,
            encoder="x",
            cpu_s=0.1,
            readings={axis: {"value": None, "confidence": 0.0} for axis in target.plan.clip_by_id[clip_id].axes},
        )
        scratch.put_record(record)
    return scratch


def publish_all(target: Target, scratch: Store) -> None:
    for key in target.keys.values():
        target.publish(scratch, key)


@pytest.mark.timeout(900)
def test_a_build_in_storage_cloned_is_the_build_in_a_folder(
    storage: Storage, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "small.toml", tmp_path / "one"
    recipe.write_text(SMALL)
    common = ["build", str(recipe), "--workers", "1", "--out", prefix, "--endpoint", storage.endpoint]
    shard = ["--scratch", str(tmp_path)]
    assert stopdown([*common, *shard, "--shard", "1/2"], monkeypatch) == 0
    assert stopdown([*common, "--finish"], monkeypatch) == 1  # the other shard lacks
    said = capsys.readouterr().out
    assert "of shards 2 of 2" in said and "--shard 2/2" in said
    assert stopdown([*common, *shard, "--shard", "2/2"], monkeypatch) == 0
    assert stopdown([*common, "--finish", "-m", "a build"], monkeypatch) == 0
    assert "stopdown clone s3://" in capsys.readouterr().out
    assert stopdown([*common, *shard, "-m", "a build"], monkeypatch) == 0  # all is there: nothing is rendered, nothing new

    clone(storage.remote(prefix.removeprefix(f"s3://{BUCKET}/")), tmp_path / "clone")
    report = build(PLAN, out, workers=1, threads=1, progress=quiet(), message="a build")
    assert report.version == History(out).version().id
    cloned = History(tmp_path / "clone").version()
    assert cloned.content == History(out).version().content
    assert timeless(cloned) == timeless(History(out).version())
    for view in sorted((out / "clips").iterdir()):
        assert (tmp_path / "clone" / "clips" / view.name).read_bytes() == view.read_bytes()
    assert (tmp_path / "clone" / "README.md").read_bytes() == (out / "README.md").read_bytes()
    assert not (tmp_path / "stopdown" / "blender").exists()


def test_a_version_is_committed_from_records_without_fetching_a_clip(
    storage: Storage, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    target = open_target(prefix, PLAN, blender=BLENDER, options=RemoteOptions(endpoint=proxy.endpoint))
    scratch = fill(target, tmp_path / "scratch")
    publish_all(target, scratch)
    proxy.requests.clear()
    again = claimed_target(prefix, PLAN, options=RemoteOptions(endpoint=proxy.endpoint))
    version = finish_target(again, message="m").version
    assert version is not None
    clips = set(scratch.objects())
    fetched = {path.rpartition("/")[2] for method, path, _ in proxy.requests if method == "GET" and "/objects/" in path}
    assert not fetched & clips
    assert remote_refs(target.remote)["head"].version == version
    assert finish_target(again, message="m").version == version  # a second end finds the first
    clone(target.remote, tmp_path / "clone")
    assert History(tmp_path / "clone").version().summary.clips == len(PLAN.clips)


def test_two_ends_at_once_make_one_version(storage: Storage, prefix: str, tmp_path: Path) -> None:
    options = RemoteOptions(endpoint=storage.endpoint)
    target = open_target(prefix, PLAN, blender=BLENDER, options=options)
    publish_all(target, fill(target, tmp_path / "scratch"))
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: finish_target(claimed_target(prefix, PLAN, options=options), message="m"), range(4)))
    assert all(report.complete for report in reports)
    assert {report.version for report in reports} == {remote_refs(target.remote)["head"].version}


def test_the_version_follows_what_was_pushed_there_before(storage: Storage, prefix: str, tmp_path: Path) -> None:
    history, _, first = built(tmp_path / "earlier")
    history.tag("v0")
    options = RemoteOptions(endpoint=storage.endpoint)
    push(history, open_remote(prefix, options))
    target = open_target(prefix, PLAN, blender=BLENDER, options=options)
    publish_all(target, fill(target, tmp_path / "scratch"))
    second = finish_target(target, message="n").version
    clone(target.remote, tmp_path / "clone")
    cloned = History(tmp_path / "clone")
    assert [version.id for version in cloned.log()] == [second, first.id]
    assert cloned.version("v0").id == first.id and cloned.version().summary.clips == len(PLAN.clips)


# --- the store's own rules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_file", [False, True])
def test_what_is_large_is_uploaded_in_parts_and_only_where_there_is_nothing(
    proxy: Proxy, tmp_path: Path, from_file: bool
) -> None:
    options = RemoteOptions(endpoint=proxy.endpoint, large_bytes=2**20)
    remote = open_remote(f"s3://{BUCKET}/large-{tmp_path.name}", options)
    data = random.Random(1).randbytes(20 * 2**20)
    path = object_file(sha256(data))
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "small").write_bytes(b"{}")
    assert remote.put("plan.json", tmp_path / "small") is True and remote.read("plan.json") == b"{}"
    assert remote.put(path, tmp_path / "file" if from_file else data) is True
    uploads = [(query, headers) for method, query, headers in proxy.requests if method == "PUT" and "/uploads/" in query]
    assert {query.split("partNumber=")[1].split("&")[0] for query, _ in uploads} == {"1", "2", "3"}
    assert all(headers["x-amz-checksum-sha256"] for _, headers in uploads)
    assert remote.read(path) == data
    assert remote.put(path, data[::-1]) is False  # a look is enough
    proxy.trouble = lambda method, path, body: 404 if method == "HEAD" else None  # another writer came after the look
    assert remote.put(path, data[::-1]) is False
    assert remote.read(path) == data
    assert list(remote.sizes("objects")) == [path] and remote.sizes("uploads") == {}


def test_a_small_put_carries_its_sha256_and_its_condition(proxy: Proxy, tmp_path: Path) -> None:
    remote = open_remote(f"s3://{BUCKET}/sums-{tmp_path.name}", RemoteOptions(endpoint=proxy.endpoint))
    assert remote.put("plan.json", b"{}")
    (_, _, headers) = proxy.requests[-1]
    assert headers["if-none-match"] == "*" and headers["x-amz-checksum-sha256"]


def test_busy_storage_is_waited_for(proxy: Proxy, prefix: str, tmp_path: Path) -> None:
    target = open_target(prefix, PLAN, blender=BLENDER, options=RemoteOptions(endpoint=proxy.endpoint))
    scratch, rng = fill(target, tmp_path / "scratch"), random.Random(6)
    failures: Counter[tuple[str, str]] = Counter()

    def busy(method: str, path: str, body: bytes) -> int | None:
        failures[method, path] += 1
        return rng.choice((500, 503)) if failures[method, path] <= 1 and rng.random() < 0.4 else None

    proxy.trouble = busy
    publish_all(target, scratch)
    assert target.missing() == []
    assert sum(failures.values()) > len(PLAN.clips)
    assert finish_target(target, message="m").complete


def test_what_is_damaged_on_its_way_is_found_before_the_record_is_written(proxy: Proxy, prefix: str, tmp_path: Path) -> None:
    options = RemoteOptions(endpoint=proxy.endpoint)
    target = open_target(prefix, PLAN, blender=BLENDER, options=options, retry=hasty())
    scratch = fill(target, tmp_path / "scratch")
    first, second = list(target.keys.values())[:2]
    damaged: list[str] = []

    def damage(method: str, path: str, body: bytes) -> bytes | None:
        if method == "PUT" and "/objects/" in path and not damaged:
            damaged.append(path)
            return body[:-1] + bytes([body[-1] ^ 1])
        return None

    proxy.trouble = damage
    assert target.publish(scratch, first)
    assert damaged
    record = target.record(first)
    assert record is not None
    for digest in (record.sha256_bytes, *record.frames.values()):
        data = target.remote.read(object_file(digest))
        assert data is not None and sha256(data) == digest
    proxy.trouble = lambda method, path, body: body[:-1] + b"?" if method == "PUT" and "/objects/" in path else None
    with pytest.raises(RemoteError, match="does not keep"):
        target.publish(scratch, second)
    assert target.remote.read(record_file(second)) is None


def test_storage_that_cannot_put_conditionally_is_refused(proxy: Proxy, prefix: str) -> None:
    proxy.dropped = {"if-none-match"}
    with pytest.raises(InputError, match="cannot put conditionally") as refusal:
        open_target(prefix, PLAN, blender=BLENDER, options=RemoteOptions(endpoint=proxy.endpoint))
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
    proxy.dropped = set()
    proxy.trouble = lambda method, path, body: 501 if method == "PUT" else None
    with pytest.raises(InputError, match="cannot put conditionally"):
        open_target(f"{prefix}2", PLAN, blender=BLENDER, options=RemoteOptions(endpoint=proxy.endpoint))


def test_a_credential_that_is_revoked_ends_in_one_line_at_once(storage: Storage, tmp_path: Path) -> None:
    prefix = f"s3://{BUCKET}/guarded"  # the server takes signatures of plain names only
    with storage.guarded() as (key, secret), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        target = open_target(prefix, PLAN, blender=BLENDER, options=RemoteOptions(endpoint=storage.endpoint), retry=hasty())
        scratch = fill(target, tmp_path / "scratch")
        first, second = list(target.keys.values())[:2]
        assert target.publish(scratch, first)
        storage.revoke(key)
        with pytest.raises(RemoteError) as refusal:
            target.publish(scratch, second)
        assert refusal.value.lasting and "\n" not in str(refusal.value) and key not in str(refusal.value)
    assert open_target(prefix, PLAN, blender=BLENDER, options=RemoteOptions(endpoint=storage.endpoint)).publish(scratch, second)


def test_another_recipe_and_a_foreign_prefix_are_refused(storage: Storage, prefix: str) -> None:
    options = RemoteOptions(endpoint=storage.endpoint)
    open_target(prefix, PLAN, blender=BLENDER, options=options)
    other: Plan = farm_plan(SMALL.replace("seed = 2", "seed = 3"))
    with pytest.raises(InputError, match="another recipe"):
        open_target(prefix, other, blender=BLENDER, options=options)
    with pytest.raises(InputError, match=r"Blender 5\.0\.1.*Blender 5\.0\.2"):
        open_target(prefix, PLAN, blender="5.0.2", options=options)
    storage.s3.put_object(Bucket=BUCKET, Key="photos/zebra.jpg", Body=b"x")
    with pytest.raises(InputError, match="neither a Stopdown dataset nor empty"):
        open_target(f"s3://{BUCKET}/photos", PLAN, blender=BLENDER, options=options)
    with pytest.raises(InputError, match="no bucket"):
        open_target("s3://no-such-bucket/x", PLAN, blender=BLENDER, options=options)

"""A server that speaks S3, on loopback, and the places of remotes that the tests run on."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from generator.remotes.base import Remote, RemoteOptions, open_remote

BUCKET, USER = "stopdown-tests", "tester"


class Storage:
    """A server that speaks S3, on loopback."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        # The server keeps its buckets and users in the process, not with its socket: one of an earlier module would leave them.
        self.s3 = boto3.client("s3", endpoint_url=endpoint)
        self.iam = boto3.client("iam", endpoint_url=endpoint)
        self.empty()

    def empty(self) -> None:
        """Leave nothing but an empty bucket."""
        self._post("reset")
        self.s3.create_bucket(Bucket=BUCKET)

    def remote(self, prefix: str, bucket: str = BUCKET) -> Remote:
        return open_remote(f"s3://{bucket}/{prefix}", RemoteOptions(endpoint=self.endpoint))

    @contextmanager
    def guarded(self) -> Iterator[tuple[str, str]]:
        """Make the server look at signatures; yield an access key that may do everything with S3, and its secret."""
        everything = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
        self.iam.create_user(UserName=USER)
        self.iam.put_user_policy(UserName=USER, PolicyName="all", PolicyDocument=everything)
        key = self.iam.create_access_key(UserName=USER)["AccessKey"]
        self._post("reset-auth", "0")
        try:
            yield key["AccessKeyId"], key["SecretAccessKey"]
        finally:
            self._post("reset-auth", "inf")

    def revoke(self, key: str) -> None:
        """Take an access key of `guarded` back."""
        self._post("reset-auth", "inf")
        self.iam.delete_access_key(UserName=USER, AccessKeyId=key)
        self._post("reset-auth", "0")

    def _post(self, order: str, body: str = "") -> None:
        request = urllib.request.Request(f"{self.endpoint}/moto-api/{order}", data=body.encode(), method="POST")
        request.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(request).close()


@contextmanager
def serving() -> Iterator[Storage]:
    """Run a storage server with credentials for it in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            yield Storage("http://{}:{}".format(*server.get_host_and_port()))
        finally:
            server.stop()


@pytest.fixture(name="storage", scope="module")
def storage_fixture() -> Iterator[Storage]:
    """Return a running storage server."""
    with serving() as storage:
        yield storage


@pytest.fixture(name="place", params=["folder", "s3"])
def place_fixture(request: pytest.FixtureRequest, tmp_path: Path, storage: Storage) -> tuple[str, RemoteOptions]:
    """Return where an empty remote is, its name with a space and letters beyond ASCII."""
    if request.param == "folder":
        (tmp_path / "a rémote").mkdir()
        return str(tmp_path / "a rémote"), RemoteOptions()
    return f"s3://{BUCKET}/sets of {tmp_path.name}/é", RemoteOptions(endpoint=storage.endpoint)


@pytest.fixture(name="remote")
def remote_fixture(place: tuple[str, RemoteOptions]) -> Remote:
    """Return an empty remote."""
    return open_remote(*place)

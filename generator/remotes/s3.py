"""A remote in S3-compatible storage, through obstore (the Rust crate object_store).

Put-if-absent is `If-None-Match: *`, compare-and-swap is `If-Match: ETag`; uploads carry a SHA-256 that the server checks.
What is large is uploaded in parts to a name of its own and then copied within the storage, again only where there is nothing
(`If-None-Match` on completing that copy): an upload in parts cannot be conditional in object_store itself.
Credentials come from the usual AWS environment variables.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from generator.errors import RemoteError
from generator.remotes.base import RemoteOptions, checked_path
from generator.versions.history.history import INTERNAL
from scenes.errors import InputError

if TYPE_CHECKING:
    from obstore.store import S3Config

_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
)
_WRONG = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "ExpiredToken", "InvalidToken", "AuthFailure")
_SKEWED = ("RequestTimeTooSkewed", "RequestExpired")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]+)</Code>")
_STATUS = re.compile(r"status code: (\d{3}[A-Za-z ]*)")
_RETRIES = 4
_PART_BYTES = 8 * 2**20
_PARTS_AT_ONCE = 4
_UPLOADS = "uploads"  # under .stopdown: what is being uploaded in parts; a kill may leave one, which nothing names


class S3Remote:
    """The history under s3://BUCKET/PREFIX/.stopdown."""

    def __init__(self, bucket: str, prefix: str, options: RemoteOptions) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self._endpoint = options.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._anonymous = options.anonymous
        self._large_bytes = options.large_bytes
        _check_endpoint(self._endpoint)
        _check_credentials(options.anonymous)
        plain = self._endpoint is not None and self._endpoint.startswith("http://")
        region = options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        config: S3Config = {"region": region, "checksum_algorithm": "SHA256", "copy_if_not_exists": "multipart"}
        if self._endpoint:
            config["endpoint"] = self._endpoint
        if options.anonymous:
            config["skip_signature"] = True
        with self._reported():
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                config=config,
                client_options={"allow_http": plain, "connect_timeout": "5s", "timeout": "300s"},
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=60)},
            )

    @property
    def name(self) -> str:
        """The address."""
        return f"s3://{self.bucket}/{self.prefix}".removesuffix("/")

    def check(self) -> None:
        """Raise RemoteError where there is no dataset, no bucket, or no right to read it."""
        if self.read("head.json") is not None or self.sizes("versions"):
            return
        raise RemoteError(f"{self.name} is not a Stopdown dataset (it has no {INTERNAL}/head.json); push one there first")

    def prepare(self) -> None:
        """Raise RemoteError where the bucket is missing or refuses, or where the prefix holds something else."""
        with self._reported():
            if self._get("head.json") is None:
                top = obstore.list_with_delimiter(self._store)  # one folder deep: what a dataset holds is not listed
                folders = [str(folder) for folder in top["common_prefixes"]]
                if top["objects"] or any(folder.strip("/") != INTERNAL for folder in folders):
                    raise RemoteError(f"{self.name} is neither a Stopdown dataset nor empty; give another prefix", lasting=True)

    def read(self, path: str) -> bytes | None:
        """Return an object's bytes, or None where there is none."""
        with self._reported():
            found = self._get(path)
        return None if found is None else found[0]

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes under a folder by path, as the storage lists them."""
        with self._reported():
            listing = obstore.list(self._store, f"{INTERNAL}/{folder}", chunk_size=1000)
            entries = [(str(entry["path"]), int(entry["size"])) for batch in listing for entry in batch]
        return {path.removeprefix(f"{INTERNAL}/"): size for path, size in entries}

    def put(self, path: str, data: bytes | Path) -> bool:
        """Put an object where there is none; a large one in parts."""
        with self._reported():
            try:
                if (data.stat().st_size if isinstance(data, Path) else len(data)) > self._large_bytes:
                    return self._put_large(path, data)
                data = data.read_bytes() if isinstance(data, Path) else data
                obstore.put(self._store, self._key(path), data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def swap(self, path: str, expected: bytes | None, data: bytes) -> bool:
        """Replace an object if its ETag is still that of the expected bytes."""
        with self._reported():
            found = self._get(path)
            if (None if found is None else found[0]) != expected:
                return False
            try:
                obstore.put(self._store, self._key(path), data, mode="create" if found is None else {"e_tag": found[1]})
            except (AlreadyExistsError, PreconditionError):
                # A request whose answer was lost is sent again and then meets its own result.
                again = self._get(path)
                return again is not None and again[0] == data
        return True

    def overwrite(self, path: str, data: bytes) -> None:
        """Put an object in the place of whatever is there."""
        with self._reported():
            obstore.put(self._store, self._key(path), data, use_multipart=len(data) > self._large_bytes)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Nothing collects garbage in a bucket, so there is nothing to keep out."""
        yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing collects garbage in a bucket, so there is nothing to keep out."""
        yield

    def _put_large(self, path: str, data: bytes | Path) -> bool:
        if self._is_there(path):
            return False
        upload = f"{INTERNAL}/{_UPLOADS}/{secrets.token_hex(16)}"
        try:
            obstore.put(self._store, upload, data, use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
            obstore.copy(self._store, upload, self._key(path), overwrite=False)
        finally:
            with suppress(BaseError, OSError):
                obstore.delete(self._store, upload)
        return True

    def _is_there(self, path: str) -> bool:
        try:
            obstore.head(self._store, self._key(path))
        except FileNotFoundError:
            return False
        return True

    def _get(self, path: str) -> tuple[bytes, str | None] | None:
        try:
            result = obstore.get(self._store, self._key(path))
            return bytes(result.bytes()), result.meta["e_tag"]
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise
            return None

    def _key(self, path: str) -> str:
        return f"{INTERNAL}/{checked_path(path)}"

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError, ValueError, OSError) as error:
            raise RemoteError(self._words(str(error)), lasting=_is_lasting(str(error))) from error

    def _words(self, text: str) -> str:
        """Return one line for an error of the storage; no part of a request is shown, for it may hold a signature."""
        code = next(iter(_CODE.findall(text)), "")
        at = self._endpoint or "AWS"
        if code == "NoSuchBucket":
            return f"there is no bucket '{self.bucket}' at {at}; create it, or check the name and --endpoint"
        if code in _SKEWED:
            return f"{at} refuses because this machine's clock is wrong ({code}); set the clock and try again"
        if code in _WRONG:
            return f"{at} does not accept the credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        status = next(iter(_STATUS.findall(text)), "").strip()
        if code == "NotImplemented" or status.startswith("501"):
            return f"{at} cannot put conditionally, so two pushes could harm each other; use storage that has If-None-Match"
        if status.startswith(("401", "403")) or "credential" in text.lower():
            right = "the bucket may not be public" if self._anonymous else "check the credentials and their rights"
            return f"{self.name} refuses ({code or status or 'no credentials'}); {right}"
        if code or status:
            return f"{self.name} answers with an error ({code or status}); nothing more was done, try again"
        return f"{at} cannot be reached for {self.name}; check --endpoint and the network, then run the same command again"


def _is_lasting(text: str) -> bool:
    """Return whether the same request would fail again: what the client did wrong, but for requests that came too fast."""
    code, status = next(iter(_CODE.findall(text)), ""), next(iter(_STATUS.findall(text)), "")
    if code in (*_WRONG, *_SKEWED, "NoSuchBucket", "NotImplemented") or status.startswith("501"):
        return True
    return status.startswith("4") and not status.startswith(("408", "409", "412", "425", "429"))


def _check_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise InputError("an endpoint holds no credentials; give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"'{endpoint}' is no endpoint; give a URL such as https://storage.example.org")


def _check_credentials(anonymous: bool) -> None:
    if anonymous or any(os.environ.get(name) for name in _CREDENTIALS):
        if os.environ.get("AWS_ACCESS_KEY_ID") and not anonymous and not os.environ.get("AWS_SECRET_ACCESS_KEY"):
            raise InputError("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY; set both")
        return
    raise InputError(
        "no credentials for s3://; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
        "(a machine's role: AWS_METADATA_ENDPOINT), or read a public bucket with --anonymous"
    )

"""Google clients are built here and nowhere else."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import google.auth
import grpc
from google.api_core.client_options import ClientOptions
from google.auth import credentials as google_credentials
from google.cloud import bigquery, bigquery_storage_v1
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.cloud.kms_v1 import KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from google.oauth2 import service_account

from engine.errors import ConfigurationError, CredentialError
from engine.foreign import mapped
from engine.settings import Settings, is_loopback

Credentials = Literal["adc", "anonymous", "file"]
Transport = Literal["tls", "plaintext"]

# Google's packages are typed in part only; through these their untyped constructors may be called.
_storage: Any = bigquery_storage_v1
_auth: Any = google_credentials
_oauth2: Any = service_account

SCOPES = ("https://www.googleapis.com/auth/bigquery", "https://www.googleapis.com/auth/cloud-platform")
#: Messages of any size, and back within seconds after the warehouse was away (gRPC's own cap is two minutes).
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

#: What a customer's key is asked for, and where Google's own keys get their tokens.
SOURCE_SCOPES = ("https://www.googleapis.com/auth/bigquery",)
TOKEN_HOSTS = frozenset({"oauth2.googleapis.com", "accounts.google.com", "www.googleapis.com"})
#: Of a key's JSON; anything else in it is Manta's own or nobody's.
KEY_FIELDS = ("type", "project_id", "private_key", "client_email", "token_uri")

#: Always named: else the storage client takes an address from the environment, which our rules do not see.
STORAGE_HOST = "https://storage.googleapis.com"


@dataclass(frozen=True)
class SourceClients:
    """The ways into a customer's BigQuery, with the customer's key: statements and the Storage Read API.

    `project` pays for the statements; `notes` is what the key's JSON says under `manta`.
    """

    bigquery: bigquery.Client
    read: BigQueryReadClient
    project: str
    email: str
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Clients:
    """The three ways into BigQuery: REST jobs, Storage Read and Storage Write."""

    bigquery: bigquery.Client
    read: BigQueryReadClient
    write: BigQueryWriteClient


def connect(
    *,
    project: str,
    location: str = "US",
    rest_host: str | None = None,
    grpc_host: str | None = None,
    credentials: Credentials = "adc",
    credentials_file: Path | None = None,
    transport: Transport = "tls",
) -> Clients:
    """Build the clients; no call is made. `rest_host` is a URL, `grpc_host` is host:port, None is Google's.

    Raises ConfigurationError for credentials that cannot be read, and for plaintext or anonymous access to a
    host that is not this machine.
    """
    if transport == "plaintext" or credentials == "anonymous":
        _refuse_unless_loopback(transport, credentials, BIGQUERY_EMULATOR_HOST=rest_host)
        _refuse_unless_loopback(transport, credentials, BIGQUERY_STORAGE_EMULATOR_HOST=grpc_host)
    if rest_host and urlsplit(rest_host).scheme == "http":
        _refuse_unless_loopback("plaintext", credentials, BIGQUERY_EMULATOR_HOST=rest_host)
    creds = _credentials(credentials, credentials_file)
    rest = bigquery.Client(
        project=project,
        location=location,
        credentials=creds,
        client_options=ClientOptions(api_endpoint=rest_host) if rest_host else None,
    )
    if transport == "plaintext" and grpc_host:
        # One channel for both: reads and writes go to the same server.
        channel = grpc.insecure_channel(grpc_host, options=CHANNEL_OPTIONS)
        return Clients(
            bigquery=rest,
            read=_storage.BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel)),
            write=_storage.BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel)),
        )
    options = ClientOptions(api_endpoint=grpc_host) if grpc_host else None
    return Clients(
        bigquery=rest,
        read=_storage.BigQueryReadClient(credentials=creds, client_options=options),
        write=_storage.BigQueryWriteClient(credentials=creds, client_options=options),
    )


def connect_source(secret: str, settings: Settings) -> SourceClients:
    """Build the clients of a customer's BigQuery from a service account's JSON key; no call is made.

    The key says who asks, the settings say where: a key cannot name an address of its own, and its tokens
    come from GCP_OAUTH_BASE_URL. Plaintext is for this machine only. Raises CredentialError for what is no
    such key, without quoting it.
    """
    key = _service_account_key(secret, settings)
    creds = _Tokens(_oauth2.Credentials.from_service_account_info(key, scopes=SOURCE_SCOPES))
    rest = bigquery.Client(
        project=key["project_id"],
        credentials=creds,
        client_options=ClientOptions(api_endpoint=settings.gcp_bigquery_base_url),
    )
    host = settings.gcp_bigquery_storage_host
    if is_loopback(host):
        channel = grpc.insecure_channel(host, options=CHANNEL_OPTIONS)
        read = _storage.BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
    else:
        read = _storage.BigQueryReadClient(credentials=creds, client_options=ClientOptions(api_endpoint=host))
    notes = key.get("manta")
    notes = notes if isinstance(notes, dict) else {}
    return SourceClients(rest, read, key["project_id"], key["client_email"], notes)


class _Tokens(google_credentials.Credentials):
    """A service account's access tokens and nothing else.

    The library's own credentials also show each token, in the background, to iamcredentials.googleapis.com,
    wherever the settings say that the API is, and sign tokens for gRPC that no token endpoint has seen.
    """

    def __init__(self, account: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._account = account

    def refresh(self, request: Any) -> None:
        """Fetch a new token from the key's token_uri."""
        self._account.refresh(request)
        self.token, self.expiry = self._account.token, self._account.expiry


def _service_account_key(secret: str, settings: Settings) -> dict[str, Any]:
    fix = "Store the JSON key of a service account, the whole file: manta credential add ORG gcp < key.json"
    try:
        key = json.loads(secret)
    except ValueError:
        key = None
    if not isinstance(key, dict) or key.get("type") != "service_account":
        raise CredentialError("The Google Cloud credential is no service account's JSON key.", fix=fix)
    if missing := [name for name in KEY_FIELDS if not isinstance(key.get(name), str) or not key[name]]:
        raise CredentialError(f"The service account key lacks {', '.join(missing)}.", fix=fix)
    host = urlsplit(key["token_uri"]).hostname
    if host not in TOKEN_HOSTS and host != urlsplit(settings.gcp_oauth_base_url).hostname:
        raise CredentialError(
            f"The service account key wants its tokens from {host}, which is not Google's.",
            fix="Store the key as Google made it; another token endpoint is set with GCP_OAUTH_BASE_URL.",
            field="token_uri",
        )
    if (universe := key.get("universe_domain", "googleapis.com")) != "googleapis.com":
        raise CredentialError(
            f"The service account key has universe_domain {universe!r}; Manta asks googleapis.com alone.",
            fix="Use a service account of Google Cloud itself.",
            field="universe_domain",
        )
    key["token_uri"] = f"{settings.gcp_oauth_base_url}/token"
    try:
        _oauth2.Credentials.from_service_account_info(key)
    except ValueError as error:
        # Not the error's text: it may quote the key.
        raise CredentialError(
            f"The private key of {key['client_email']} cannot be read ({type(error).__name__}).", fix=fix
        ) from None
    return key


def connect_kms(
    *,
    host: str | None = None,
    credentials: Credentials = "adc",
    credentials_file: Path | None = None,
    transport: Transport = "tls",
) -> KeyManagementServiceClient:
    """Build the Cloud KMS client; no call is made. `host` is host:port, None is Google's.

    Raises ConfigurationError as `connect` does.
    """
    if transport == "plaintext" and host:
        _refuse_unless_loopback(transport, credentials, KMS_EMULATOR_HOST=host)
        channel = grpc.insecure_channel(host, options=CHANNEL_OPTIONS)
        return KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))
    if credentials == "anonymous":
        _refuse_unless_loopback(transport, credentials, KMS_EMULATOR_HOST=host)
    options = ClientOptions(api_endpoint=host) if host else None
    return KeyManagementServiceClient(
        credentials=_credentials(credentials, credentials_file), client_options=options
    )


def connect_storage(
    *,
    project: str,
    host: str | None = None,
    credentials: Credentials = "adc",
    credentials_file: Path | None = None,
    transport: Transport = "tls",
) -> Any:
    """Build the Cloud Storage client; no call is made. `host` is a URL, None is Google's.

    Raises ConfigurationError as `connect` does, and without the extra `gcs`.
    """
    if transport == "plaintext" or credentials == "anonymous":
        _refuse_unless_loopback(transport, credentials, STORAGE_EMULATOR_HOST=host)
    if host and urlsplit(host).scheme == "http":
        _refuse_unless_loopback("plaintext", credentials, STORAGE_EMULATOR_HOST=host)
    try:
        storage: Any = importlib.import_module("google.cloud.storage")
    except ImportError as error:
        raise ConfigurationError(
            "Artifacts in Cloud Storage need the package google-cloud-storage, which is not installed.",
            fix="Install Manta with its extra gcs: pip install 'manta[gcs]', in a checkout make setup.",
            field="artifact_root",
        ) from error
    # Else it asks for the bucket's metadata in a thread of its own, for traces that nobody collects.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    return storage.Client(
        project=project,
        credentials=_credentials(credentials, credentials_file),
        client_options=ClientOptions(api_endpoint=host or STORAGE_HOST),
    )


def _credentials(kind: Credentials, file: Path | None) -> Any:
    if kind == "anonymous":
        return _auth.AnonymousCredentials()
    if kind == "file":
        return _from_file(file)
    with mapped("Reading Google's application default credentials"):
        creds, _ = google.auth.default(scopes=SCOPES)
    return creds


def _from_file(file: Path | None) -> Any:
    if file is None:
        raise ConfigurationError(
            "Google credentials are read from a file, but none is named.",
            fix="Set GOOGLE_CREDENTIALS_FILE.",
            field="google_credentials_file",
        )
    try:
        return _oauth2.Credentials.from_service_account_file(str(file), scopes=SCOPES)
    except (OSError, ValueError) as error:
        # Not the error's text: it may quote the file.
        raise ConfigurationError(
            f"{file} cannot be read as a service account key ({type(error).__name__}).",
            fix="Point GOOGLE_CREDENTIALS_FILE at a service account's JSON key.",
            field="google_credentials_file",
        ) from error


def _refuse_unless_loopback(transport: str, credentials: str, **hosts: str | None) -> None:
    for setting, host in hosts.items():
        if host is None or not is_loopback(host):
            risky = "plaintext transport" if transport == "plaintext" else f"{credentials} credentials"
            raise ConfigurationError(
                f"{setting}: {risky} to {host or 'googleapis.com'}, which is not this machine.",
                fix="Use tls with adc or file credentials, or an address on 127.0.0.1.",
                field=setting.lower(),
            )

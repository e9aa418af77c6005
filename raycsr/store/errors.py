"""What goes wrong with a file: what waiting may mend, and all else in a line."""

import errno
from urllib.parse import urlsplit

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions

from raycsr.errors import UserError

FAILURES = (OSError, exceptions.BotoCoreError, exceptions.ClientError, S3UploadFailedError, ValueError, RuntimeError)


class FileMissing(UserError):
    """There is no such file."""


class AccessDenied(UserError):
    """The file system forbids the access to a file, or S3 any use of these keys."""


class FileTooLarge(UserError):
    """A file has more bytes than were to be read.

    Attributes:
        size: Size of the file, in bytes.
    """

    def __init__(self, message: str, size: int = 0) -> None:
        """Takes the line and the size."""
        super().__init__(message)
        self.size = size


class ChangedFileError(OSError):
    """Another version of a file is there than that which was opened."""


_SHARED_FOLDER_AWAY = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOTCONN, errno.EHOSTDOWN}


# the last two: another's write of the same file is under way
_AGAIN = ("RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted")


def is_transient(error: BaseException) -> bool:
    """Whether the same request may be answered a little later: by S3, or by a shared folder."""
    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or code_of(error) in _AGAIN
    if isinstance(error, exceptions.SSLError):
        return "certificate" not in str(error).lower()
    if isinstance(
        error,
        exceptions.ConnectionError
        | exceptions.HTTPClientError
        | exceptions.IncompleteReadError
        | exceptions.FlexibleChecksumError  # bytes that were damaged on their way
        | exceptions.MetadataRetrievalError
        | exceptions.CredentialRetrievalError
        | ConnectionError,
    ):
        return True
    return isinstance(error, OSError) and error.errno in _SHARED_FOLDER_AWAY


def are_stale_keys(error: BaseException) -> bool:
    """Whether the keys were good once: whoever hands them out may have newer ones."""
    stale = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidAccessKeyId", "InvalidToken")
    return isinstance(error, exceptions.ClientError) and code_of(error) in stale


def code_of(error: exceptions.ClientError) -> str:
    """S3's code of what is wrong; where an answer has no text, as of HEAD, its status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def as_user_error(error: BaseException, where: str) -> UserError:
    """The line for what cannot be done with a file; S3's texts are not repeated, for they may hold keys."""
    if isinstance(error, FileTooLarge):
        return error
    kind = UserError
    if _is_missing(error):
        kind = FileMissing
    elif _is_denied(error):
        kind = AccessDenied
    return kind(f"cannot use {where}: {_reason(error)}")


def _is_missing(error: BaseException) -> bool:
    if isinstance(error, exceptions.ClientError):
        return code_of(error) in ("NoSuchKey", "404")
    return isinstance(error, FileNotFoundError)


def _is_denied(error: BaseException) -> bool:
    if isinstance(error, exceptions.ClientError):
        return _CODES.get(code_of(error)) in _OF_ACCESS
    return isinstance(error, PermissionError)


_DENIED = "access denied; check the AWS keys and the bucket's policy"
_UNKNOWN_KEY = "the AWS access key is unknown there; check AWS_ACCESS_KEY_ID"
_WRONG_SECRET = "the AWS secret key is wrong; check AWS_SECRET_ACCESS_KEY"
_EXPIRED = "the AWS credentials have expired; renew them, or name a profile that does"
_ELSEWHERE = "the bucket is in another region or at another endpoint; check AWS_REGION and AWS_ENDPOINT_URL"
_CHANGED = "it changed while it was read; give data that stays as it is"
_NO_KEYS = (
    "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or write "
    "s3://anonymous@bucket where the bucket is public"
)
_CODES = {
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "NoSuchBucket": "there is no such bucket; create it first",
    "301": _ELSEWHERE,
    "400": "bad request; check AWS_REGION, AWS_ENDPOINT_URL and the AWS keys",
    "PermanentRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "KeyTooLongError": "the name is too long; S3 has at most 1,024 bytes",
    "PreconditionFailed": _CHANGED,
    "412": _CHANGED,
    "InvalidRange": _CHANGED,
    "416": _CHANGED,
}
_OF_ACCESS = {_DENIED, _UNKNOWN_KEY, _WRONG_SECRET, _EXPIRED}
_ERRNOS = {
    errno.ENOSPC: "no space left on the device; free some and run the same command again",
    errno.EDQUOT: "the quota of this disk is used up; free some and run the same command again",
    errno.EACCES: "permission denied; choose a folder that you can write to",
    errno.EPERM: "permission denied; choose a folder that you can write to",
    errno.EROFS: "the file system is read-only; choose a folder that you can write to",
    errno.ENOTDIR: "a part of its path is a file; give another folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENAMETOOLONG: "its name is too long; give a shorter one",
}


def _reason(error: BaseException) -> str:
    if _is_missing(error):
        return "there is no such file"
    if isinstance(error, ChangedFileError):
        return _CHANGED
    if isinstance(error, exceptions.ClientError | S3UploadFailedError):
        code = code_of(error) if isinstance(error, exceptions.ClientError) else "upload failed"
        return _CODES.get(code, f"S3 refuses it ({code}); check the location and the AWS settings")
    if isinstance(error, exceptions.NoCredentialsError):
        return _NO_KEYS
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.MetadataRetrievalError):
        return "what hands out the AWS credentials fails; ask it by hand"  # its own words may hold some
    if isinstance(error, exceptions.SSLError) and not is_transient(error):
        return "the S3 endpoint's certificate is not trusted; check AWS_ENDPOINT_URL and AWS_CA_BUNDLE"
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError):
        host = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", ""))).hostname  # a URL may hold keys
        where = f" at {host}" if host else ""
        return f"the S3 endpoint{where} does not answer; check AWS_ENDPOINT_URL and the network"
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return _ERRNOS[error.errno]
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())
